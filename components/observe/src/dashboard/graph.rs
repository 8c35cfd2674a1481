//! Who talks to whom, as a drawing: clients to the left of what they call. Pure: the same links give the same picture.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, PreEscaped, html};

/// Where a link leads, and how safely.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Link {
    /// Which of the nodes calls.
    pub(super) from: usize,
    /// Which of them is called.
    pub(super) to: usize,
    /// What went over mutual TLS of all that crossed, from 0 to 1.
    pub(super) tls: f64,
    /// What is said when it is pointed at.
    pub(super) about: String,
    /// Where a click leads.
    pub(super) href: String,
}

/// Something that calls or is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    /// What it is called.
    pub(super) name: String,
    /// What stands below its name.
    pub(super) note: String,
    /// Whether all of it is in the mesh.
    pub(super) is_meshed: bool,
    /// Where a click leads; nowhere if it has no page.
    pub(super) href: Option<String>,
}

/// A padlock's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock {
    /// All that crossed was encrypted.
    Locked,
    /// Some of it was not.
    Mixed,
    /// None of it was.
    Open,
}

impl Lock {
    /// Of a share from 0 to 1.
    pub(super) fn of(tls: f64) -> Self {
        match tls {
            tls if tls >= 1.0 => Self::Locked,
            tls if tls > 0.0 => Self::Mixed,
            _ => Self::Open,
        }
    }

    /// For style sheets and for people.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Locked => "locked",
            Self::Mixed => "mixed",
            Self::Open => "open",
        }
    }

    /// The padlock, 14 wide and 16 high. A link is told by its shape and its dashes too, not by colour alone.
    pub(super) fn icon(self) -> Markup {
        let shackle = match self {
            Self::Locked => "M3.5 7V4.5a3.5 3.5 0 0 1 7 0V7",
            Self::Mixed | Self::Open => "M3.5 7V4.5a3.5 3.5 0 0 1 6.6-1.6",
        };
        html! {
            path.shackle d=(shackle) {}
            rect.body x="1" y="7" width="12" height="9" rx="2" {}
        }
    }
}

const WIDTH: f64 = 190.0;
const HEIGHT: f64 = 52.0;
const BETWEEN_COLUMNS: f64 = 130.0;
const BETWEEN_ROWS: f64 = 30.0;
const MARGIN: f64 = 24.0;
/// Characters of a name that fit into its box.
const FITS: usize = 24;
/// How often neighbours are asked where a node should stand.
const SWEEPS: usize = 4;

/// Draws it.
pub(super) fn draw(nodes: &[Node], links: &[Link]) -> Markup {
    let places = places(nodes.len(), links);
    let extent =
        |of: fn(&(f64, f64)) -> f64, size: f64| places.iter().map(of).fold(0.0, f64::max) + size + MARGIN;
    let (width, height) = (extent(|place| place.0, WIDTH), extent(|place| place.1, HEIGHT));
    html! {
        svg.graph viewBox=(format!("0 0 {width} {height}")) width=(width) height=(height) role="group"
            aria-label="Who talks to whom" {
            @for link in links { (line(link, &places, nodes)) }
            @for (node, place) in nodes.iter().zip(&places) { (frame(node, *place)) }
        }
    }
}

fn line(link: &Link, places: &[(f64, f64)], nodes: &[Node]) -> Markup {
    let lock = Lock::of(link.tls);
    let ((from_x, from_y), (to_x, to_y)) = (places[link.from], places[link.to]);
    let (from_y, to_y) = (from_y + HEIGHT / 2.0, to_y + HEIGHT / 2.0);
    // Forward from side to side; back, and to a neighbour in the same column, around the outside.
    let (curve, middle) = if to_x > from_x {
        let (begin, end) = (from_x + WIDTH, to_x);
        let bend = (end - begin) / 2.0;
        let curve = format!("M{begin} {from_y}C{} {from_y} {} {to_y} {end} {to_y}", begin + bend, end - bend);
        (curve, (begin.midpoint(end), from_y.midpoint(to_y)))
    } else {
        let (begin, end) = (from_x + WIDTH, to_x + WIDTH);
        let far = begin.max(end) + BETWEEN_COLUMNS * 0.7;
        let curve = format!("M{begin} {from_y}C{far} {from_y} {far} {to_y} {end} {to_y}");
        (curve, (0.125 * (begin + end) + 0.75 * far, from_y.midpoint(to_y)))
    };
    let label = format!("{} to {}: {}", nodes[link.from].name, nodes[link.to].name, link.about);
    html! {
        a.link.(lock.name()) href=(link.href) aria-label=(label) data-from=(nodes[link.from].name)
            data-to=(nodes[link.to].name) {
            title { (label) }
            path.hit d=(curve) {}
            path.line d=(curve) {}
            g.lock transform=(format!("translate({} {})", middle.0 - 7.0, middle.1 - 8.0)) {
                circle.plate cx="7" cy="8.5" r="14" {}
                (lock.icon())
            }
        }
    }
}

fn frame(node: &Node, (x, y): (f64, f64)) -> Markup {
    let (middle, name_y, note_y) = (x + WIDTH / 2.0, y + 22.0, y + 40.0);
    let content = html! {
        title { (node.name) ": " (node.note) }
        rect x=(x) y=(y) width=(WIDTH) height=(HEIGHT) rx="8" {}
        text.name x=(middle) y=(name_y) { (shortened(&node.name)) }
        text.note x=(middle) y=(note_y) { (shortened(&node.note)) }
    };
    let class = if node.is_meshed { "node meshed" } else { "node" };
    match &node.href {
        Some(href) => html! { a class=(class) href=(href) { (content) } },
        None => html! { g class=(class) { (content) } },
    }
}

fn shortened(name: &str) -> PreEscaped<String> {
    let mut short: String = name.chars().take(FITS).collect();
    if name.chars().nth(FITS).is_some() {
        short.pop();
        short.push('…');
    }
    html! { (short) }
}

/// The upper left corner of each node.
fn places(nodes: usize, links: &[Link]) -> Vec<(f64, f64)> {
    let columns = columns(nodes, links);
    let mut rows: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (node, column) in columns.iter().enumerate() {
        rows.entry(*column).or_default().push(node);
    }
    untangle(&mut rows, links);
    let height = |count: usize| number(count) * (HEIGHT + BETWEEN_ROWS) - BETWEEN_ROWS;
    let tallest = rows.values().map(|row| height(row.len())).fold(0.0, f64::max);
    let mut places = vec![(0.0, 0.0); nodes];
    for (column, row) in &rows {
        let x = MARGIN + number(*column) * (WIDTH + BETWEEN_COLUMNS);
        let top = MARGIN + (tallest - height(row.len())) / 2.0;
        for (at, node) in row.iter().enumerate() {
            places[*node] = (x, top + number(at) * (HEIGHT + BETWEEN_ROWS));
        }
    }
    places
}

/// Each node one column to the right of the last that calls it. A call that leads back to a caller counts for nothing.
fn columns(nodes: usize, links: &[Link]) -> Vec<usize> {
    let forward = without_circles(nodes, links);
    let mut columns = vec![0; nodes];
    // No path is longer than there are nodes.
    for _ in 0..nodes {
        for (from, to) in &forward {
            columns[*to] = columns[*to].max(columns[*from] + 1);
        }
    }
    columns
}

fn without_circles(nodes: usize, links: &[Link]) -> Vec<(usize, usize)> {
    let mut forward: BTreeSet<(usize, usize)> = BTreeSet::new();
    let called: BTreeSet<usize> = links.iter().map(|link| link.to).collect();
    // Whoever nobody calls comes first, so that what leads to them from behind is what leads back.
    let mut ordered: Vec<_> = links.iter().map(|link| (link.from, link.to)).collect();
    ordered.sort_by_key(|(from, to)| (called.contains(from), *from, *to));
    for (from, to) in ordered {
        if from != to && !leads(&forward, nodes, to, from) {
            forward.insert((from, to));
        }
    }
    forward.into_iter().collect()
}

/// Whether a way leads from one to the other.
fn leads(links: &BTreeSet<(usize, usize)>, nodes: usize, from: usize, to: usize) -> bool {
    let mut seen = vec![false; nodes];
    let mut next = vec![from];
    while let Some(node) = next.pop() {
        if node == to {
            return true;
        }
        if !std::mem::replace(&mut seen[node], true) {
            next.extend(links.range((node, 0)..(node + 1, 0)).map(|(_, to)| *to));
        }
    }
    false
}

/// Moves each node within its column to where those it is linked with are on average, one column after the other.
fn untangle(rows: &mut BTreeMap<usize, Vec<usize>>, links: &[Link]) {
    let heights_of = |row: &[usize]| {
        let middle = number(row.len()) / 2.0;
        row.iter().enumerate().map(|(at, node)| (*node, number(at) - middle)).collect::<Vec<_>>()
    };
    let mut heights: BTreeMap<usize, f64> = rows.values().flat_map(|row| heights_of(row)).collect();
    for _ in 0..SWEEPS {
        for row in rows.values_mut() {
            row.sort_by(|one, other| {
                wished(*one, &heights, links).total_cmp(&wished(*other, &heights, links))
            });
            heights.extend(heights_of(row));
        }
    }
}

/// The average height of those that a node is linked with; its own if there are none.
fn wished(node: usize, heights: &BTreeMap<usize, f64>, links: &[Link]) -> f64 {
    let neighbours = links.iter().filter_map(|link| match (link.from == node, link.to == node) {
        (true, false) => heights.get(&link.to),
        (false, true) => heights.get(&link.from),
        _ => None,
    });
    let (count, sum) = neighbours.fold((0, 0.0), |(count, sum), height| (count + 1, sum + height));
    if count == 0 { heights.get(&node).copied().unwrap_or_default() } else { sum / number(count) }
}

#[expect(clippy::cast_precision_loss, reason = "as many as fit on a page")]
fn number(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(from: usize, to: usize) -> Link {
        Link { from, to, tls: 1.0, about: "encrypted".into(), href: "#1".into() }
    }

    fn node(name: &str) -> Node {
        Node { name: name.into(), note: "1/1".into(), is_meshed: true, href: None }
    }

    #[test]
    fn callers_stand_left_of_what_they_call() {
        assert_eq!(columns(4, &[link(3, 0), link(0, 1), link(0, 2)]), [1, 2, 2, 0]);
        assert_eq!(columns(3, &[link(0, 1), link(1, 2), link(0, 2)]), [0, 1, 2]);
    }

    #[test]
    fn circles_and_calls_to_oneself_come_to_an_end() {
        assert_eq!(columns(2, &[link(0, 1), link(1, 0)]), [0, 1]);
        assert_eq!(columns(1, &[link(0, 0)]), [0]);
        // Nobody calls 3: what leads back to 1 is 0 -> 1, not the way from 3.
        assert_eq!(columns(4, &[link(0, 1), link(1, 2), link(2, 0), link(3, 1)]), [0, 1, 2, 0]);
    }

    #[test]
    fn no_two_nodes_share_a_place() {
        let links = [link(0, 2), link(1, 2), link(0, 3), link(1, 3), link(3, 0), link(4, 4)];
        let places = places(6, &links);
        for (at, place) in places.iter().enumerate() {
            assert!(!places[..at].contains(place), "{places:?}");
        }
    }

    #[test]
    fn lines_do_not_cross_where_they_need_not() {
        let places = places(4, &[link(0, 3), link(1, 2)]);
        assert_eq!(places[0].1 < places[1].1, places[3].1 < places[2].1, "{places:?}");
    }

    #[test]
    fn names_are_text_whatever_they_are() {
        let drawn = draw(&[node("<script>"), node("b")], &[link(0, 1)]).into_string();
        assert!(!drawn.contains("<script>") && drawn.contains("&lt;script&gt;"), "{drawn}");
        assert!(drawn.contains("class=\"link locked\""), "{drawn}");
    }

    #[test]
    fn a_lock_is_open_only_when_nothing_was_encrypted() {
        assert_eq!([1.0, 0.5, 0.0].map(Lock::of), [Lock::Locked, Lock::Mixed, Lock::Open]);
    }
}
