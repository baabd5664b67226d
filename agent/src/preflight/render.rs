//! The report for people and for machines.

use comfy_table::{ContentArrangement, Table, presets};

use super::Report;

/// Columns of the table; wide enough for a remedy, narrow enough for most terminals.
const WIDTH: u16 = 120;

impl Report {
    /// A table for a terminal, with likely causes and remedies below it.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(WIDTH)
            .set_header(["CHECK", "RESULT", "DETAIL"]);
        for check in &self.checks {
            table.add_row([check.name, check.result.as_str(), &check.detail]);
        }
        let mut text = table.trim_fmt();
        for check in self.checks.iter().filter(|check| !check.remedy.is_empty()) {
            text.push_str(&format!(
                "\n\n{} ({})\n  likely cause: {}\n  what to do:   {}",
                check.name,
                check.result.as_str(),
                check.cause,
                check.remedy
            ));
        }
        text.push('\n');
        text
    }

    /// For machines: `{"result": "Passed", "checks": [{"name", "result", "detail", "cause", "remedy"}]}`.
    pub fn body(&self) -> serde_json::Value {
        serde_json::json!({ "result": self.to_proto().result, "checks": self.checks })
    }
}
