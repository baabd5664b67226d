pub mod contents;
pub mod converge;
pub mod failure;
pub mod live;
pub mod preimage;
pub mod records;
pub mod trust;
