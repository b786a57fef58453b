//! stub
pub struct DataSet; pub struct DataSpec; pub struct Example; pub struct Label; pub struct Labels; pub fn load(){}
