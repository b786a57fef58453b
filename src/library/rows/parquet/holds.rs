//! What a column that is written holds.

use std::io::Write;
use std::sync::Arc;

use ::parquet::basic::{LogicalType, Repetition, Type as Physical};
use ::parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type};
use ::parquet::errors::ParquetError;
use ::parquet::file::writer::SerializedRowGroupWriter;
use ::parquet::schema::types::{Type, TypePtr};
use serde_json::Value as Json;

use super::super::Added;
use super::plain;

/// What a column that we write holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    Text,
    Int,
    Float,
    Bool,
    /// Lists, objects, and values of several types, as JSON.
    Json,
}

impl Holds {
    /// What holds all of some values.
    pub(super) fn all<'a>(values: impl Iterator<Item = &'a Json>) -> Self {
        let of = |value: &Json| match value {
            Json::String(_) => Self::Text,
            Json::Bool(_) => Self::Bool,
            Json::Number(n) if n.is_i64() => Self::Int,
            Json::Number(_) => Self::Float,
            _ => Self::Json,
        };
        let join = |a: Self, b: Self| match (a, b) {
            _ if a == b => a,
            (Self::Int, Self::Float) | (Self::Float, Self::Int) => Self::Float,
            _ => Self::Json,
        };
        let said = values.filter(|value| !value.is_null()).map(of);
        said.reduce(join).unwrap_or(Self::Text)
    }

    pub(super) fn field(self, name: &str) -> Result<TypePtr, ParquetError> {
        let (physical, logical) = match self {
            Self::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Self::Json => (Physical::BYTE_ARRAY, Some(LogicalType::Json)),
            Self::Int => (Physical::INT64, None),
            Self::Float => (Physical::DOUBLE, None),
            Self::Bool => (Physical::BOOLEAN, None),
        };
        let builder = Type::primitive_type_builder(name, physical)
            .with_logical_type(logical)
            .with_repetition(Repetition::OPTIONAL);
        builder.build().map(Arc::new)
    }

    /// Whether a value can be said so.
    pub(super) fn takes(self, value: &Json) -> bool {
        match value {
            Json::Null => true,
            Json::String(_) => matches!(self, Self::Text | Self::Json),
            Json::Bool(_) => matches!(self, Self::Bool | Self::Json),
            Json::Number(n) if n.is_i64() => matches!(self, Self::Int | Self::Float | Self::Json),
            Json::Number(_) => matches!(self, Self::Float | Self::Json),
            _ => self == Self::Json,
        }
    }

    /// Writes the next column of a group.
    pub(super) fn column<W: Write + Send>(
        self,
        group: &mut SerializedRowGroupWriter<'_, W>,
        values: &[&Json],
    ) -> Result<(), ParquetError> {
        let Some(mut column) = group.next_column()? else {
            return Err(ParquetError::General("a column too many".to_owned()));
        };
        let levels: Vec<i16> = values.iter().map(|v| i16::from(!v.is_null())).collect();
        let said = values.iter().filter(|v| !v.is_null());
        let levels = Some(levels.as_slice());
        match self {
            Self::Text => {
                let list: Vec<ByteArray> = said.map(|v| plain(v).as_str().into()).collect();
                column
                    .typed::<ByteArrayType>()
                    .write_batch(&list, levels, None)?;
            }
            Self::Json => {
                let list: Vec<ByteArray> = said.map(|v| v.to_string().as_str().into()).collect();
                column
                    .typed::<ByteArrayType>()
                    .write_batch(&list, levels, None)?;
            }
            Self::Int => {
                let list: Vec<i64> = said.filter_map(|v| v.as_i64()).collect();
                column
                    .typed::<Int64Type>()
                    .write_batch(&list, levels, None)?;
            }
            Self::Float => {
                let list: Vec<f64> = said.filter_map(|v| v.as_f64()).collect();
                column
                    .typed::<DoubleType>()
                    .write_batch(&list, levels, None)?;
            }
            Self::Bool => {
                let list: Vec<bool> = said.filter_map(|v| v.as_bool()).collect();
                column
                    .typed::<BoolType>()
                    .write_batch(&list, levels, None)?;
            }
        }
        column.close()
    }
}

pub(super) const fn holds(added: &Added) -> Holds {
    if added.number {
        Holds::Float
    } else {
        Holds::Text
    }
}
