//! stub
pub struct SplitSource; pub fn find_split(){}
