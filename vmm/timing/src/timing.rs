//! How long every step takes.

/// A distribution of durations, in nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub enum Delay {
    /// Always the same.
    Constant(u64),
    /// Anything between the two, each as likely.
    Uniform {
        /// Shortest.
        low: u64,
        /// Longest.
        high: u64,
    },
    /// Memoryless.
    Exponential {
        /// Mean.
        mean: f64,
    },
    /// The logarithm is normal.
    LogNormal {
        /// Median.
        median: f64,
        /// Standard deviation of the natural logarithm.
        sigma: f64,
    },
    /// Measured: values at quantiles from 0 to 1, both included and ascending; linear in between.
    Table(Vec<(f64, u64)>),
}

impl Delay {
    /// No time at all.
    pub const NONE: Self = Self::Constant(0);
}

/// Declares [`Timing`] with one delay for each step, and the list of their names.
macro_rules! timing {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// How long each step of a DMA takes; the numbers are rows of "one DMA, end to end" in docs/architecture.md.
        /// All but the copy itself are distributions.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Timing {
            $($(#[doc = $doc])+ pub $name: Delay,)+
            /// Row 13: bytes that the device copies in a microsecond, all of its engines each.
            pub bytes_per_us: u64,
        }

        impl Timing {
            /// Names of the delays, in the order of the path.
            pub const STEPS: &[&str] = &[$(stringify!($name)),+];

            /// The delay of that name.
            pub fn step(&self, name: &str) -> Option<&Delay> {
                match name { $(stringify!($name) => Some(&self.$name),)+ _ => None }
            }

            /// The delay of that name, to be changed.
            pub fn step_mut(&mut self, name: &str) -> Option<&mut Delay> {
                match name { $(stringify!($name) => Some(&mut self.$name),)+ _ => None }
            }

            /// Nothing takes any time, but the copy.
            pub fn instant(bytes_per_us: u64) -> Self {
                Self { $($name: Delay::NONE,)+ bytes_per_us }
            }
        }
    };
}

timing! {
    /// Rows 1 and 2: from the doorbell to the device's first look at the request.
    doorbell,
    /// Row 3: request fetched and decoded.
    fetch,
    /// Rows 5 and 6: a translation that the device TLB lacks, request and reply, the walk included. Or: the region's
    /// own table is walked.
    translation,
    /// Row 8: the page request travels to the root. Or: the event to the driver's memory.
    page_request,
    /// Row 9: the entry is written to the page request queue. Or: to the event queue.
    queue_write,
    /// Row 9: from the interrupt's message to the first instruction of its handler.
    interrupt,
    /// Row 10: the handler's thread wakes and takes the entry.
    wake,
    /// Row 10: a fault whose page is in memory is resolved, all but the table's update.
    minor,
    /// Row 10: a fault whose page is not in memory is resolved.
    major,
    /// Row 10: each page more that is mapped with a fault.
    next_page,
    /// Row 10: the page table is updated. Or: the device's.
    table_update,
    /// Row 11: the answer's descriptor is written and read by the IOMMU. Or: the resume command by the device.
    response,
    /// Rows 11 and 12: the answer travels to the device.
    response_message,
    /// Rows 12 and 13: the queue pair that waited runs again.
    device_wake,
    /// Row 13: fixed part of a copy, for each piece without a gap.
    copy,
    /// Row 15: completion entry written, until the program sees it.
    completion,
    /// An invalidation, from its descriptor to its completion, copies under way not counted.
    invalidation,
}
