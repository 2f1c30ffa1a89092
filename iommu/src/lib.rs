//! Intel VT-d in scalable mode: PASID tables, first-stage walks, queued invalidation, page requests.
