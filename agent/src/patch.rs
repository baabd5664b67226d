pub mod contents;
pub mod failure;
pub mod live;
pub mod records;
pub mod trust;
