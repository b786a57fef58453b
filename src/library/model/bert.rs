//! stub to be replaced
