//! A curve as SVG: bars per second, a line for the limit. Written by hand: a plotting crate would
//! bring fonts and rasterisers along for forty lines of text.

use std::fmt::Write as _;

const WIDTH: f64 = 880.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 56.0;
const BOTTOM: f64 = 44.0;
const TOP: f64 = 44.0;
const RIGHT: f64 = 16.0;

/// Bars of one value per second under a title, with a dashed line at `limit`.
#[derive(Clone, Debug)]
pub struct Picture<'a> {
    /// What is shown.
    pub title: &'a str,
    /// Unit of the bars.
    pub unit: &'a str,
    /// One value per second.
    pub values: &'a [u32],
    /// What the values should stay under.
    pub limit: f64,
}

impl Picture<'_> {
    /// The picture as an SVG document.
    pub fn svg(&self) -> String {
        let most = self.values.iter().copied().max().unwrap_or(0);
        let scale = f64::from(most).max(self.limit).max(1.0) * 1.1;
        let (plot_width, plot_height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
        let seconds = self.values.len().max(1);
        let step = plot_width / seconds as f64;
        let floor = HEIGHT - BOTTOM;
        let height = |value: f64| value / scale * plot_height;
        let mut svg = String::new();
        // Writing to a String can't fail.
        let mut line = |text: std::fmt::Arguments<'_>| {
            let _ = writeln!(svg, "{text}");
        };
        line(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">"
        ));
        line(format_args!("<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>"));
        line(format_args!(
            "<text x=\"{LEFT}\" y=\"24\" font-size=\"15\">{}</text>",
            escape(self.title)
        ));
        for (second, value) in self.values.iter().enumerate() {
            let tall = height(f64::from(*value));
            line(format_args!(
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{tall:.1}\" fill=\"#2b6cb0\"/>",
                LEFT + step * second as f64,
                floor - tall,
                (step * 0.85).max(0.5),
            ));
        }
        let limit = floor - height(self.limit);
        line(format_args!(
            "<path d=\"M{LEFT} {limit:.1}H{:.1}\" stroke=\"#c53030\" stroke-dasharray=\"6 4\"/>",
            WIDTH - RIGHT
        ));
        line(format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"#c53030\" text-anchor=\"end\">limit {:.0}</text>",
            WIDTH - RIGHT,
            limit - 6.0,
            self.limit
        ));
        line(format_args!(
            "<path d=\"M{LEFT} {TOP}V{floor}H{:.1}\" fill=\"none\" stroke=\"#333\"/>",
            WIDTH - RIGHT
        ));
        for part in 0..=4 {
            let value = scale / 1.1 * f64::from(part) / 4.0;
            let y = floor - height(value);
            line(format_args!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value:.0}</text>",
                LEFT - 6.0,
                y + 4.0
            ));
        }
        let every = (seconds / 10).max(1);
        for second in (0..=seconds).step_by(every) {
            line(format_args!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{second}</text>",
                LEFT + step * second as f64,
                floor + 16.0
            ));
        }
        line(format_args!(
            "<text x=\"{LEFT}\" y=\"{:.1}\">{} per second, by seconds since the server ended</text>",
            HEIGHT - 8.0,
            escape(self.unit)
        ));
        line(format_args!("</svg>"));
        svg
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_has_a_bar_and_the_text_is_escaped() {
        let picture = Picture { title: "a < b", unit: "connects", values: &[1, 5, 0], limit: 4.0 };
        let svg = picture.svg();
        assert_eq!(svg.matches("fill=\"#2b6cb0\"").count(), 3);
        assert!(svg.contains("a &lt; b") && svg.contains("limit 4"), "{svg}");
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn no_values_are_no_division_by_zero() {
        let svg = Picture { title: "", unit: "", values: &[], limit: 0.0 }.svg();
        assert!(svg.ends_with("</svg>\n"));
    }
}
