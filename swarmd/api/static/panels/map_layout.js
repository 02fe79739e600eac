// Where the nodes of the map stand. Pure: sizes and nodes in, coordinates out.
// This node is in the middle. Round it, on an ellipse, every other node has a direction of its own, by region and id, which
// changes only when a node comes into the list or leaves it; how far out it stands goes with the logarithm of its least
// round trip, which hardly changes. So a picture that is drawn anew every few seconds stands still.

const SAMPLES = 720; // points of the ellipse whose arc length is summed: half a degree
const STEPS = 50; // distances are rounded to so many steps: a least round trip that improves a little moves nothing
const INNER = 0.36; // of the ellipse: the innermost nodes keep off the middle
const MOST_INNER = 0.66; // further out, distances could not be told apart
const FARTHEST = 0.9; // of the ellipse: outside it is the place of nodes that are away
const SLOWEST_MS = 10000; // beyond that a link is given up
const FASTEST_MS = 0.1; // two processes of one machine
const RING_GAP = 15; // pixels between two rings: their figures do not touch
const ALONE_Y = 98; // of this node without others: below it is the note that says what to do
const FULL_CIRCLE = 2 * Math.PI;
const UNKNOWN = "??";

/** How the picture is laid out: room for labels on the sides decides, then the number of nodes. */
export function modeOf(width, count) {
  if (width >= 620 && count <= 16) return "roomy"; // name and round trip beside each node
  if (width < 620 && count <= 5) return "below"; // the same under each node
  return "dense"; // round trip alone, along the line
}

/** Pixels: the ellipse's half axes, the frame of regions outside it, the height of all, the sizes of nodes. */
export function frameOf(width, count, mode) {
  const narrow = width < 620;
  const height = !count ? 400 : mode === "below" ? 420 : mode === "dense" ? (narrow ? 540 : 660) : count <= 4 ? 440 : count <= 8 ? 520 : 580;
  const [side, top] = { roomy: [124, 50], below: [26, 58], dense: narrow ? [40, 42] : [46, 46] }[mode];
  const edge = narrow ? 8 : 30; // outside the frame, for half of a region's name
  return {
    height,
    width,
    centre: { x: width / 2, y: count ? height / 2 : ALONE_Y },
    rx: Math.max(40, Math.min(430, width / 2 - side - edge)),
    ry: height / 2 - top - 18,
    outer: { x: side, y: top },
    radius: { roomy: 13, below: 12, dense: narrow ? 4.5 : 6.5 }[mode], // of a node with the usual memory
    selfRadius: mode === "dense" && narrow ? 18 : 24,
    clear: mode === "dense" ? 16 : 50, // round this node; labels need more than bare circles
  };
}

/**
 * @param nodes [{ id, region, least, up }]: without this node; `least` in milliseconds or null, of a node that is away the
 *              last one known: so the scale stays when it goes
 * @returns { places: Map id -> { x, y, angle }, rings: [{ ms, rx, ry }], sectors: [{ region, count, from, to, middle }] }
 *          angles in radians, clockwise from the right, as SVG counts
 */
export function arrange(nodes, { centre, rx, ry, radius, selfRadius, clear }) {
  const ordered = [...nodes].sort(byRegion);
  const regions = [...new Set(ordered.map((node) => node.region))];
  const apart = regions.length > 1 ? Math.max(0.7, ordered.length / 28) : 0; // slots between two regions
  const slots = ordered.length + apart * regions.length;
  const turned = ordered.length === 1 ? -0.25 : 0; // a single one stands to the right
  const angleAt = ellipseAngles(rx, ry);
  const crowd = (ordered.length * (2 * radius + 3)) / perimeter(rx, ry);
  const inner = Math.min(MOST_INNER, Math.max(INNER, crowd, (selfRadius + clear) / Math.min(rx, ry)));
  const [low, high] = span(ordered);
  const reach = (ms) => inner + (FARTHEST - inner) * Math.min(1, Math.max(0, Math.log10(ms / low) / Math.log10(high / low)));
  const places = new Map();
  const sectors = [];
  let slot = 0;
  for (const region of regions) {
    slot += apart / 2;
    const from = slot;
    for (const node of ordered.filter((each) => each.region === region)) {
      const angle = angleAt((slot + 0.5) / slots + turned);
      const out = node.up && node.least !== null ? Math.round(reach(node.least) * STEPS) / STEPS : 1;
      const [across, down] = [rx * out * Math.cos(angle), ry * out * Math.sin(angle)];
      places.set(node.id, { x: centre.x + across, y: centre.y + down, angle: Math.atan2(down, across) }); // as one sees it
      slot += 1;
    }
    const count = slot - from;
    // A whole circle has no middle: its name goes to the top, where no node ever stands.
    sectors.push({ region, count: Math.round(count), from: angleAt(from / slots), to: angleAt(slot / slots),
      middle: regions.length === 1 ? -Math.PI / 2 : angleAt((from + count / 2) / slots) });
    slot += apart / 2;
  }
  const rings = [low, ...ROUND.filter((ms) => ms > low * 1.5 && ms < high / 1.5 && Number.isInteger(Math.log10(ms))), high]
    .map((ms) => ({ ms, rx: rx * reach(ms), ry: ry * reach(ms) }));
  const apartEnough = (ring, at) => at === 0 || at === rings.length - 1 || Math.min(rings.at(-1).ry - ring.ry, ring.ry - rings[0].ry) > RING_GAP;
  return { places, rings: rings.filter(apartEnough), sectors };
}

const ROUND = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000];

/** Round milliseconds between which all distances are, a factor of ten apart or more. */
function span(nodes) {
  const known = nodes.filter((node) => node.least !== null).map((node) => Math.min(SLOWEST_MS, Math.max(FASTEST_MS, node.least)));
  if (!known.length) return [1, 100];
  const high = ROUND.find((ms) => ms >= Math.max(...known));
  const low = ROUND.findLast((ms) => ms <= Math.min(...known));
  return high / low >= 10 ? [low, high] : low >= 1 ? [low / 10, high] : [FASTEST_MS, FASTEST_MS * 10 >= high ? FASTEST_MS * 10 : high];
}

function byRegion(a, b) {
  if (a.region === b.region) return a.id < b.id ? -1 : 1;
  if (a.region === UNKNOWN || b.region === UNKNOWN) return a.region === UNKNOWN ? 1 : -1;
  return a.region < b.region ? -1 : 1;
}

const perimeter = (rx, ry) => Math.PI * (3 * (rx + ry) - Math.sqrt((3 * rx + ry) * (rx + 3 * ry))); // Ramanujan's first formula

/** From a share of the way round, clockwise from the top, to an angle: equal shares are equally long pieces of the ellipse. */
function ellipseAngles(rx, ry) {
  const lengths = [0];
  for (let at = 1; at <= SAMPLES; at += 1) {
    const angle = (FULL_CIRCLE * (at - 0.5)) / SAMPLES - Math.PI / 2;
    lengths.push(lengths[at - 1] + Math.hypot(rx * Math.sin(angle), ry * Math.cos(angle)));
  }
  return (share) => {
    const wanted = (share - Math.floor(share)) * lengths[SAMPLES];
    let at = lengths.findIndex((length) => length > wanted);
    if (at < 0) at = SAMPLES;
    const within = (wanted - lengths[at - 1]) / (lengths[at] - lengths[at - 1]);
    return (FULL_CIRCLE * (at - 1 + within)) / SAMPLES - Math.PI / 2;
  };
}

/** A piece of an ellipse as an SVG path, clockwise. */
export function arc({ x, y }, rx, ry, from, to) {
  const sweep = (((to - from) % FULL_CIRCLE) + FULL_CIRCLE) % FULL_CIRCLE || FULL_CIRCLE;
  const point = (angle) => `${(x + rx * Math.cos(angle)).toFixed(1)} ${(y + ry * Math.sin(angle)).toFixed(1)}`;
  if (sweep > FULL_CIRCLE - 0.001) return `M${point(from)}A${rx} ${ry} 0 1 1 ${point(from + Math.PI)}A${rx} ${ry} 0 1 1 ${point(from)}`;
  return `M${point(from)}A${rx} ${ry} 0 ${sweep > Math.PI ? 1 : 0} 1 ${point(from + sweep)}`;
}

/** From a relay to the node behind it: a curve that bends away from the middle, round which the other lines run. */
export function detour(centre, from, to) {
  const middle = { x: (from.x + to.x) / 2, y: (from.y + to.y) / 2 };
  const length = Math.hypot(to.x - from.x, to.y - from.y) || 1;
  const across = { x: (to.y - from.y) / length, y: (from.x - to.x) / length };
  const outwards = across.x * (middle.x - centre.x) + across.y * (middle.y - centre.y) >= 0 ? 1 : -1;
  const bend = 0.16 * length * outwards;
  return `M${from.x.toFixed(1)} ${from.y.toFixed(1)}Q${(middle.x + across.x * bend).toFixed(1)} ${(middle.y + across.y * bend).toFixed(1)} ${to.x.toFixed(1)} ${to.y.toFixed(1)}`;
}
