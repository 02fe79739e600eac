// Whether a file of a given size runs: on this node alone, on the swarm together, or not at all. The node says so of the
// recommended file of each repository; what it says bounds the others, and between the bounds the memory that it reports
// decides.

import { peersUp } from "./nodes.js";
import { get } from "./store.js";

const RUN_FACTOR = 1.15; // running takes this much more memory than the weights; as the node reckons

export const VERDICTS = {
  here: { icon: "✓", kind: "good", text: "Fits here", meaning: "All of it fits into this node's memory." },
  swarm: { icon: "◐", kind: "warn", text: "Fits the swarm", meaning: "Too large for this node alone; it fits into the memory of all connected nodes together." },
  no: { icon: "✕", kind: "bad", text: "Does not fit", meaning: "Larger than the memory of all connected nodes together. It can be stored, and runs once more nodes have joined." },
};

/** (size in bytes) => "here" | "swarm" | "no" for the results of a search. */
export function judge(repos) {
  const [here, swarm] = [bounds(memoryHere()), bounds(memorySwarm())];
  for (const repo of repos) {
    const size = repo.variants.find((variant) => variant.filename === repo.recommended_filename)?.size_bytes;
    if (!size) continue;
    here.learn(size, repo.score_breakdown?.fit === 1);
    swarm.learn(size, repo.fits_swarm);
  }
  return (size) => (here.fits(size) ? "here" : swarm.fits(size) ? "swarm" : "no");
}

function bounds(memory) {
  let [most, least] = [0, Infinity];
  return {
    learn(size, fits) {
      if (fits) most = Math.max(most, size);
      else least = Math.min(least, size);
    },
    fits: (size) => size <= most || (size < least && size * RUN_FACTOR <= memory),
  };
}

function memoryHere() {
  const hardware = get("stats")?.hardware;
  if (!hardware) return 0;
  if (hardware.gpu_inference && hardware.gpu_vram_mb) return (hardware.gpu_vram_mb - (hardware.gpu_vram_used_mb ?? 0)) * 1e6;
  return (hardware.total_ram_mb - hardware.used_ram_mb) * 1e6;
}

const memorySwarm = () => memoryHere() + peersUp().reduce((sum, peer) => sum + (peer.free_ram_mb ?? 0) * 1e6, 0);
