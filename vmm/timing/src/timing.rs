//! The steps of a DMA with a page fault, and a distribution of durations for each.

/// A distribution of durations, in nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub enum Delay {
    /// Always the same.
    Constant(u64),
    /// Uniform between two bounds, both included.
    Uniform {
        /// Shortest.
        low: u64,
        /// Longest.
        high: u64,
    },
    /// Exponential.
    Exponential {
        /// Mean.
        mean: f64,
    },
    /// Log-normal.
    LogNormal {
        /// Median.
        median: f64,
        /// Standard deviation of the natural logarithm.
        sigma: f64,
    },
    /// Measured: (quantile, nanoseconds) pairs, ascending, from quantile 0 to quantile 1; linear in between.
    Table(Vec<(f64, u64)>),
}

impl Delay {
    /// Zero nanoseconds.
    pub const NONE: Self = Self::Constant(0);
}

/// Declares [`Timing`] with one delay for each step, and the list of step names.
macro_rules! timing {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// The duration of each step of a DMA. Rows are those of the table "One DMA, from doorbell to completion" in
        /// `docs/architecture.md`. Every step but the copying itself has a distribution.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Timing {
            $($(#[doc = $doc])+ pub $name: Delay,)+
            /// Row *copy*: copy rate of each engine of the device, in bytes per microsecond.
            pub bytes_per_us: u64,
        }

        impl Timing {
            /// Names of the steps, in the order of the path.
            pub const STEPS: &[&str] = &[$(stringify!($name)),+];

            /// The delay of the step `name`; `None` if there is no such step.
            pub fn step(&self, name: &str) -> Option<&Delay> {
                match name { $(stringify!($name) => Some(&self.$name),)+ _ => None }
            }

            /// As [`Self::step`], mutable.
            pub fn step_mut(&mut self, name: &str) -> Option<&mut Delay> {
                match name { $(stringify!($name) => Some(&mut self.$name),)+ _ => None }
            }

            /// A timing in which only copying takes time, at `bytes_per_us`.
            pub fn instant(bytes_per_us: u64) -> Self {
                Self { $($name: Delay::NONE,)+ bytes_per_us }
            }
        }
    };
}

timing! {
    /// Rows *post* to *schedule*: from the doorbell until the device looks at the queue.
    doorbell,
    /// Row *fetch*: the request is fetched and decoded.
    fetch,
    /// Rows *lookup* and *walk*: a translation that misses the device TLB: request, page table walk and reply. Or: a walk
    /// of the on-demand region's own table.
    translation,
    /// Row *park*: the page request travels to the IOMMU. Or: the page fault event travels to the driver's memory.
    page_request,
    /// Row *queue*: the entry is written to the page request queue. Or: to the NIC's event queue.
    queue_write,
    /// Row *queue*: from the interrupt message to the first instruction of its handler.
    interrupt,
    /// Row *handling*: the handler's thread wakes and takes the entry.
    wake,
    /// Row *handling*: a fault whose page is in memory is handled, except for the table update.
    minor,
    /// Row *handling*: a fault whose page is not in memory is handled, except for the table update.
    major,
    /// Row *handling*: each additional page that is mapped with a fault.
    next_page,
    /// Row *handling*: the page table is updated. Or: the on-demand region's table.
    table_update,
    /// Row *answer*: the response descriptor is written, and read by the IOMMU. Or: the resume command, by the device.
    response,
    /// Rows *answer* and *match*: the response travels to the device.
    response_message,
    /// Rows *match* and *copy*: until the parked queue pair runs again.
    device_wake,
    /// Row *copy*: fixed cost of a copy, for each contiguous piece.
    copy,
    /// Row *completion*: from the completion entry until the program sees it.
    completion,
    /// An invalidation, from its descriptor to its completion, without the wait for copies in flight.
    invalidation,
}
