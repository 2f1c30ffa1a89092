//! `refault demo`: a stock guest whose XFS moves DAX blocks under live DMA, watched and judged from outside.

pub mod summary;
