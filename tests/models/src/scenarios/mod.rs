mod completions;
mod destruction;
mod invalidation;
mod page_requests;
mod words;
