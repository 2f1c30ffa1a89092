//! The observation side: events of the models become records with a time for every stage ([`trace`]), the figures of a
//! demo ([`summary`]), and what people read ([`report`]) in a run's folder ([`folder`]).

pub mod folder;
pub mod report;
pub mod save;
pub mod summary;
pub mod trace;
