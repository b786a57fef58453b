//! What chat templates are given beside the messages.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value as Json};

use crate::exec::predict::Writer;
use crate::library::chat::{Rendering, tools};

/// Flags of conversations.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Conversations")]
pub(super) struct Templating {
    /// A JSON file with a list of the functions that the assistant may call
    #[arg(long, value_name = "FILE")]
    tools: Option<PathBuf>,
    /// A variable of the chat template, such as enable_thinking=false; its value is JSON, or else a text. May be given
    /// several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = variable)]
    variable: Vec<(String, Json)>,
}

fn variable(text: &str) -> Result<(String, Json), String> {
    let (key, value) = text.split_once('=').ok_or("KEY=VALUE is wanted")?;
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    if !key.starts_with(first) || !key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(format!("`{key}` is no name of a variable"));
    }
    let value = serde_json::from_str(value).unwrap_or_else(|_| Json::String(value.to_owned()));
    Ok((key.to_owned(), value))
}

/// What a template is given.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// Descriptions of functions.
    pub(super) tools: Option<Json>,
    /// Variables.
    pub(super) variables: Map<String, Json>,
}

impl Given {
    /// What a template is given of it, with the tools of a row in the place of its own.
    pub(super) fn rendering<'a>(&'a self, tools: Option<&'a Json>) -> Rendering<'a> {
        Rendering {
            generation_prompt: true,
            tools: tools.or(self.tools.as_ref()),
            extra: Some(&self.variables).filter(|all| !all.is_empty()),
        }
    }
}

impl Templating {
    /// The first flag that is given.
    pub(super) fn first(&self) -> Option<&'static str> {
        match (&self.tools, self.variable.is_empty()) {
            (Some(_), _) => Some("--tools"),
            (None, false) => Some("--variable"),
            (None, true) => None,
        }
    }

    /// What they say, for a model that reads it.
    ///
    /// # Errors
    /// A file that cannot be read, or what the model's template does not read.
    pub(super) fn given(&self, writer: &Writer) -> Result<Given, String> {
        let Some(first) = self.first() else {
            return Ok(Given::default());
        };
        if !writer.converses() {
            return Err(format!(
                "`{first}` has no effect: the model has no chat template"
            ));
        }
        let idle =
            |name: &str| format!("the model's chat template does not read `{name}`; leave it away");
        let list = match &self.tools {
            None => None,
            Some(path) => {
                let shown = path.display();
                let text =
                    std::fs::read_to_string(path).map_err(|why| format!("{shown}: {why}"))?;
                let read = tools(Json::String(text)).map_err(|why| format!("{shown}: {why}"))?;
                if !writer.reads("tools") {
                    return Err(idle("tools"));
                }
                Some(read).filter(|list| !list.is_null())
            }
        };
        let mut variables = Map::new();
        for (key, value) in &self.variable {
            if !writer.reads(key) {
                return Err(idle(key));
            }
            if variables.insert(key.clone(), value.clone()).is_some() {
                return Err(format!("`--variable {key}=…` is given twice"));
            }
        }
        Ok(Given {
            tools: list,
            variables,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_json_or_texts() {
        assert_eq!(
            variable("enable_thinking=false"),
            Ok(("enable_thinking".to_owned(), json!(false)))
        );
        assert_eq!(variable("_a=b=c"), Ok(("_a".to_owned(), json!("b=c"))));
        assert_eq!(variable("list=[1]"), Ok(("list".to_owned(), json!([1]))));
        assert!(variable("a").is_err() && variable("=1").is_err() && variable("a b=1").is_err());
    }
}
