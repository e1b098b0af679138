//! Tables of named columns, written as CSV and as Parquet.

use crate::cli::Failure;
use crate::run::write_whole;
use parquet::basic::{LogicalType, Repetition, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;
use std::path::Path;
use std::sync::Arc;

/// Values of one column; what is not known is none.
pub(crate) enum Column {
    Text(Vec<Option<String>>),
    Whole(Vec<Option<i64>>),
    Number(Vec<Option<f64>>),
}

/// Columns of one length, with their names.
pub(crate) struct Columns(Vec<(String, Column)>);

impl Columns {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn text(&mut self, name: &str, values: impl Iterator<Item = Option<String>>) {
        self.0.push((name.into(), Column::Text(values.collect())));
    }

    pub(crate) fn whole(&mut self, name: &str, values: impl Iterator<Item = Option<i64>>) {
        self.0.push((name.into(), Column::Whole(values.collect())));
    }

    pub(crate) fn number(&mut self, name: &str, values: impl Iterator<Item = Option<f64>>) {
        self.0.push((name.into(), Column::Number(values.collect())));
    }

    /// Writes CSV: the shortest digits that give each number back exactly; nothing for what is not known.
    pub(crate) fn write_csv(&self, path: &Path) -> Result<(), Failure> {
        let failed = |e: &dyn std::fmt::Display| {
            Failure::Failed(format!("cannot make {}: {e}", path.display()))
        };
        let cell = |column: &Column, row: usize| match column {
            Column::Text(values) => values[row].clone(),
            Column::Whole(values) => values[row].map(|v| v.to_string()),
            Column::Number(values) => values[row].map(|v| v.to_string()),
        };
        let mut writer = csv::Writer::from_writer(Vec::new());
        let head = self.0.iter().map(|(name, _)| name);
        writer.write_record(head).map_err(|e| failed(&e))?;
        for row in 0..self.rows() {
            let cells = self.0.iter();
            let cells = cells.map(|(_, column)| cell(column, row).unwrap_or_default());
            writer.write_record(cells).map_err(|e| failed(&e))?;
        }
        let bytes = writer.into_inner().map_err(|e| failed(&e))?;
        Ok(write_whole(path, &bytes)?)
    }

    /// Writes Parquet: one row group, every column optional.
    pub(crate) fn write_parquet(&self, path: &Path) -> Result<(), Failure> {
        let bytes = self
            .parquet()
            .map_err(|e| Failure::Failed(format!("cannot make {}: {e}", path.display())))?;
        Ok(write_whole(path, &bytes)?)
    }

    fn rows(&self) -> usize {
        self.0.first().map_or(0, |(_, column)| match column {
            Column::Text(values) => values.len(),
            Column::Whole(values) => values.len(),
            Column::Number(values) => values.len(),
        })
    }

    fn parquet(&self) -> Result<Vec<u8>, ParquetError> {
        let field = |(name, column): &(String, Column)| {
            let (physical, logical) = match column {
                Column::Text(_) => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
                Column::Whole(_) => (Physical::INT64, None),
                Column::Number(_) => (Physical::DOUBLE, None),
            };
            Type::primitive_type_builder(name, physical)
                .with_repetition(Repetition::OPTIONAL)
                .with_logical_type(logical)
                .build()
                .map(Arc::new)
        };
        let fields = self.0.iter().map(field).collect::<Result<Vec<_>, _>>()?;
        let schema = Type::group_type_builder("trials")
            .with_fields(fields)
            .build()?;
        let properties = Arc::new(WriterProperties::builder().build());
        let mut writer = SerializedFileWriter::new(Vec::new(), Arc::new(schema), properties)?;
        let mut group = writer.next_row_group()?;
        for (_, column) in &self.0 {
            let Some(mut target) = group.next_column()? else {
                break;
            };
            match column {
                Column::Text(values) => {
                    let (levels, known) = levels(values, |v| ByteArray::from(v.as_str()));
                    let typed = target.typed::<ByteArrayType>();
                    typed.write_batch(&known, Some(&levels), None)?;
                }
                Column::Whole(values) => {
                    let (levels, known) = levels(values, |v| *v);
                    let typed = target.typed::<Int64Type>();
                    typed.write_batch(&known, Some(&levels), None)?;
                }
                Column::Number(values) => {
                    let (levels, known) = levels(values, |v| *v);
                    let typed = target.typed::<DoubleType>();
                    typed.write_batch(&known, Some(&levels), None)?;
                }
            }
            target.close()?;
        }
        group.close()?;
        writer.into_inner()
    }
}

/// Parquet's form of optional values: 1 or 0 for each row, and the known values.
fn levels<T, U>(values: &[Option<T>], value: impl Fn(&T) -> U) -> (Vec<i16>, Vec<U>) {
    let levels = values.iter().map(|v| i16::from(v.is_some())).collect();
    (levels, values.iter().flatten().map(value).collect())
}
