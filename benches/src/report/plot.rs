//! The picture: instructions of a frame against its fragments.

use plotters::prelude::*;

use super::rows::Figures;

/// Fragments behind the header, as cases have them.
pub(super) const SHAPES: [(&str, u32); 5] =
    [("1", 0), ("h+1", 1), ("h+2", 2), ("h+3", 3), ("h+4", 4)];

/// A line: its name, the file, what is before the shape in the case's name, and the number.
type Line = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    RGBColor,
);

const LINES: [Line; 4] = [
    (
        "ixgbe, safe layer",
        "frames",
        "ixgbe/port",
        "total",
        RGBColor(200, 60, 40),
    ),
    (
        "ixgbe, the driver's queue",
        "frames",
        "ixgbe/raw",
        "total",
        RGBColor(230, 150, 60),
    ),
    (
        "DPDK ixgbe",
        "compare",
        "ixgbe/dpdk-full",
        "instructions.peer",
        RGBColor(40, 90, 190),
    ),
    (
        "DPDK ixgbe, external buffers",
        "compare",
        "ixgbe/dpdk-external",
        "instructions.peer",
        RGBColor(110, 160, 220),
    ),
];

/// Draws what there is of it.
///
/// # Errors
/// What plotters says.
pub fn draw(figures: &Figures) -> Result<String, String> {
    let mut svg = String::new();
    let failed = |error: &dyn std::fmt::Display| format!("the picture cannot be drawn: {error}");
    let lines = LINES.map(|(name, file, before, number, colour)| {
        let point = |(shape, fragments): &(&str, u32)| {
            let case = format!("{before}/{shape}/checksum/32");
            Some((*fragments, figures.get(file, &case, number)?))
        };
        (
            name,
            SHAPES.iter().filter_map(point).collect::<Vec<_>>(),
            colour,
        )
    });
    let most = lines
        .iter()
        .flat_map(|(_, points, _)| points)
        .map(|(_, cost)| *cost);
    let most = most.fold(100.0, f64::max) * 1.1;
    {
        let area = SVGBackend::with_string(&mut svg, (800, 420)).into_drawing_area();
        area.fill(&WHITE).map_err(|error| failed(&error))?;
        let mut chart = ChartBuilder::on(&area)
            .caption(
                "Instructions per frame, checksum, burst of 32",
                ("sans-serif", 18),
            )
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(56)
            .build_cartesian_2d(0u32..4, 0f64..most)
            .map_err(|error| failed(&error))?;
        chart
            .configure_mesh()
            .x_labels(5)
            .x_desc("fragments behind the header")
            .draw()
            .map_err(|error| failed(&error))?;
        for (name, points, colour) in lines
            .into_iter()
            .filter(|(_, points, _)| !points.is_empty())
        {
            let series = LineSeries::new(points, colour.stroke_width(2));
            chart
                .draw_series(series)
                .map_err(|error| failed(&error))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE)
            .border_style(BLACK)
            .draw()
            .map_err(|error| failed(&error))?;
        area.present().map_err(|error| failed(&error))?;
    }
    Ok(svg)
}
