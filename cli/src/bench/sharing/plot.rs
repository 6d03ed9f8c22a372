//! The plot of a page: CPU time for a byte against the size of a send, hot and cold.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::Report;
use super::measure::{Cache, Measured};
use super::table::bytes;
use crate::error::Failure;

/// What is drawn, so that lines can be told apart.
const LINES: [&str; 8] = [
    "memcpy",
    "copy",
    "owned",
    "memcpy-sum",
    "owned-sum",
    "protected",
    "protected-page",
    "protected-value",
];
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 0, 0),
    RGBColor(0, 114, 178),
    RGBColor(130, 130, 130),
    RGBColor(86, 180, 233),
    RGBColor(0, 158, 115),
    RGBColor(230, 159, 0),
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
];
const SIZE: (u32, u32) = (900, 1000);
/// What a logarithm can be taken of, where a cost is below a tick of the clock.
const LEAST: f64 = 0.0001;

/// The plot as SVG.
pub(super) fn svg(report: &Report) -> Result<String, Failure> {
    let mut text = String::new();
    draw(&mut text, &report.measured)
        .map_err(|error| Failure::failed(format!("cannot draw the plot: {error}")))?;
    Ok(text)
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw(text: &mut String, measured: &Measured) -> Drawn {
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let areas = root.split_evenly((2, 1));
    for (area, cache) in areas.iter().zip(Cache::ALL) {
        chart(area, measured, cache)?;
    }
    root.present()?;
    Ok(())
}

fn chart(area: &DrawingArea<SVGBackend<'_>, Shift>, measured: &Measured, cache: Cache) -> Drawn {
    let sizes = || measured.sizes.iter().map(|size| *size as f64);
    let (least, most) = (
        sizes().fold(f64::INFINITY, f64::min),
        sizes().fold(1.0, f64::max),
    );
    let costs = measured
        .figures
        .iter()
        .filter(|figure| LINES.contains(&figure.case));
    let costs = costs.map(|figure| figure.nanoseconds_per_byte.max(LEAST));
    // The same for both charts.
    let (cheapest, dearest) = costs.fold((1.0, LEAST), |(cheapest, dearest): (f64, f64), cost| {
        (cheapest.min(cost), dearest.max(cost))
    });
    let title = format!("{} bytes: nanoseconds of CPU for a byte", cache.name());
    let x = (least..most).log_scale().base(4.0);
    let y = (cheapest / 2.0..dearest * 2.0).log_scale();
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 20))
        .margin(10)
        .margin_right(30)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .x_desc("bytes of a send")
        .x_labels(12)
        .x_label_formatter(&|size| bytes(*size as usize))
        .y_label_formatter(&|cost| format!("{cost}"))
        .light_line_style(WHITE)
        .draw()?;
    for (name, colour) in LINES.into_iter().zip(COLOURS) {
        let of_line = |f: &&super::measure::Figure| f.case == name && f.cache == cache;
        let figures = measured.figures.iter().filter(of_line);
        let points: Vec<_> = figures
            .map(|figure| (figure.size as f64, figure.nanoseconds_per_byte.max(LEAST)))
            .collect();
        if points.is_empty() {
            continue;
        }
        let style = colour.stroke_width(2);
        chart
            .draw_series(LineSeries::new(points, style))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()?;
    Ok(())
}
