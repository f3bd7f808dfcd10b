//! Minimum s-t cut by augmenting paths grown from both terminals.
//!
//! Source: Y. Boykov, V. Kolmogorov, "An Experimental Comparison of Min-Cut/Max-Flow Algorithms
//! for Energy Minimization in Vision", PAMI 2004, section 3 (growth, augmentation, adoption).
//! Capacities are integers, so the cut is exact and the same on every machine.

use std::collections::VecDeque;

const NONE: u32 = u32::MAX;
/// Parent code of a node that hangs directly on its terminal.
const TERMINAL: u32 = u32::MAX - 1;
/// Parent code of a node that lost its parent and waits for adoption.
const ORPHAN: u32 = u32::MAX - 2;

/// A directed graph with two terminals; build it, [`Self::solve`] it, ask [`Self::is_source`].
#[derive(Debug, Clone)]
pub struct MaxFlow {
    first: Vec<u32>,
    /// Residual to a terminal: positive from the source, negative to the sink.
    terminal: Vec<i64>,
    next: Vec<u32>,
    head: Vec<u32>,
    residual: Vec<i64>,
    flow: i64,
    parent: Vec<u32>,
    in_sink: Vec<bool>,
    stamp: Vec<u32>,
    distance: Vec<u32>,
    queued: Vec<bool>,
    active: VecDeque<u32>,
    orphans: VecDeque<u32>,
    time: u32,
}

impl MaxFlow {
    /// A graph of `nodes` nodes and no edges; `edges` only reserves memory.
    pub fn new(nodes: usize, edges: usize) -> Self {
        Self {
            first: vec![NONE; nodes],
            terminal: vec![0; nodes],
            next: Vec::with_capacity(2 * edges),
            head: Vec::with_capacity(2 * edges),
            residual: Vec::with_capacity(2 * edges),
            flow: 0,
            parent: vec![NONE; nodes],
            in_sink: vec![false; nodes],
            stamp: vec![0; nodes],
            distance: vec![0; nodes],
            queued: vec![false; nodes],
            active: VecDeque::new(),
            orphans: VecDeque::new(),
            time: 0,
        }
    }

    /// Adds capacity source→`node` and `node`→sink; both must be ≥ 0 and may be added repeatedly.
    pub fn add_terminal(&mut self, node: usize, from_source: i64, to_sink: i64) {
        let present = self.terminal[node];
        let from_source = from_source + present.max(0);
        let to_sink = to_sink + (-present).max(0);
        self.flow += from_source.min(to_sink);
        self.terminal[node] = from_source - to_sink;
    }

    /// Adds `a`→`b` with capacity `forward` and `b`→`a` with `backward`, both ≥ 0.
    pub fn add_edge(&mut self, a: usize, b: usize, forward: i64, backward: i64) {
        if a == b {
            return;
        }
        for (from, to, capacity) in [(a, b, forward), (b, a, backward)] {
            let arc = self.head.len() as u32;
            self.head.push(to as u32);
            self.residual.push(capacity);
            self.next.push(self.first[from]);
            self.first[from] = arc;
        }
    }

    /// Pushes the maximum flow and returns its value, which equals the minimum cut.
    pub fn solve(&mut self) -> i64 {
        for node in 0..self.first.len() {
            if self.terminal[node] != 0 {
                self.in_sink[node] = self.terminal[node] < 0;
                self.parent[node] = TERMINAL;
                self.distance[node] = 1;
                self.activate(node);
            }
        }
        while let Some(node) = self.active.pop_front() {
            let node = node as usize;
            self.queued[node] = false;
            // A node keeps its turn until its tree cannot grow through it any more.
            while self.parent[node] != NONE {
                let Some(bridge) = self.grow(node) else { break };
                self.time += 1;
                self.augment(bridge);
                while let Some(orphan) = self.orphans.pop_front() {
                    self.adopt(orphan as usize);
                }
            }
        }
        self.flow
    }

    /// After [`Self::solve`]: whether `node` lies on the source side of the smallest minimum cut.
    pub fn is_source(&self, node: usize) -> bool {
        self.parent[node] != NONE && !self.in_sink[node]
    }

    fn activate(&mut self, node: usize) {
        if !self.queued[node] {
            self.queued[node] = true;
            self.active.push_back(node as u32);
        }
    }

    /// Residual capacity of `arc` in the direction flow takes inside the tree of `in_sink`.
    fn usable(&self, arc: u32, in_sink: bool) -> i64 {
        self.residual[(arc ^ u32::from(in_sink)) as usize]
    }

    /// Grows the tree of `node`; returns an arc from the source tree to the sink tree when they meet.
    fn grow(&mut self, node: usize) -> Option<u32> {
        let in_sink = self.in_sink[node];
        let mut arc = self.first[node];
        while arc != NONE {
            if self.usable(arc, in_sink) > 0 {
                let other = self.head[arc as usize] as usize;
                if self.parent[other] == NONE {
                    self.in_sink[other] = in_sink;
                    self.parent[other] = arc ^ 1;
                    self.stamp[other] = self.stamp[node];
                    self.distance[other] = self.distance[node] + 1;
                    self.activate(other);
                } else if self.in_sink[other] != in_sink {
                    return Some(if in_sink { arc ^ 1 } else { arc });
                } else if self.stamp[other] <= self.stamp[node] && self.distance[other] > self.distance[node]
                {
                    // A shorter way to the same terminal keeps later paths short.
                    self.parent[other] = arc ^ 1;
                    self.stamp[other] = self.stamp[node];
                    self.distance[other] = self.distance[node] + 1;
                }
            }
            arc = self.next[arc as usize];
        }
        None
    }

    /// Saturates the path source → bridge → sink.
    fn augment(&mut self, bridge: u32) {
        let tail = self.head[(bridge ^ 1) as usize] as usize;
        let head = self.head[bridge as usize] as usize;
        let mut push = self.residual[bridge as usize];
        for start in [tail, head] {
            let mut node = start;
            while self.parent[node] != TERMINAL {
                let arc = self.parent[node];
                // Parent arcs run child → parent; in the source tree flow comes the other way.
                push = push.min(self.usable(arc ^ 1, self.in_sink[node]));
                node = self.head[arc as usize] as usize;
            }
            push = push.min(self.terminal[node].abs());
        }
        self.residual[bridge as usize] -= push;
        self.residual[(bridge ^ 1) as usize] += push;
        for start in [tail, head] {
            let mut node = start;
            while self.parent[node] != TERMINAL {
                let arc = self.parent[node];
                let used = (arc ^ 1) ^ u32::from(self.in_sink[node]);
                self.residual[used as usize] -= push;
                self.residual[(used ^ 1) as usize] += push;
                let up = self.head[arc as usize] as usize;
                if self.residual[used as usize] == 0 {
                    self.parent[node] = ORPHAN;
                    self.orphans.push_front(node as u32);
                }
                node = up;
            }
            self.terminal[node] -= if self.in_sink[node] { -push } else { push };
            if self.terminal[node] == 0 {
                self.parent[node] = ORPHAN;
                self.orphans.push_front(node as u32);
            }
        }
        self.flow += push;
    }

    /// Distance from `node` to its terminal, or `None` when its root is an orphan.
    fn origin(&mut self, node: usize) -> Option<u32> {
        let mut steps = 0;
        let mut at = node;
        let total = loop {
            if self.stamp[at] == self.time {
                break steps + self.distance[at];
            }
            match self.parent[at] {
                TERMINAL => {
                    self.stamp[at] = self.time;
                    self.distance[at] = 1;
                    break steps + 1;
                }
                ORPHAN | NONE => return None,
                arc => {
                    steps += 1;
                    at = self.head[arc as usize] as usize;
                }
            }
        };
        // The whole walked path learns its distance, so the next walk stops early.
        let (mut at, mut left) = (node, total);
        while self.stamp[at] != self.time {
            self.stamp[at] = self.time;
            self.distance[at] = left;
            left -= 1;
            at = self.head[self.parent[at] as usize] as usize;
        }
        Some(total)
    }

    fn adopt(&mut self, node: usize) {
        let in_sink = self.in_sink[node];
        let (mut best, mut best_distance) = (NONE, u32::MAX);
        let mut arc = self.first[node];
        while arc != NONE {
            let other = self.head[arc as usize] as usize;
            if self.usable(arc ^ 1, in_sink) > 0
                && self.in_sink[other] == in_sink
                && self.parent[other] != NONE
                && let Some(distance) = self.origin(other)
                && distance < best_distance
            {
                best = arc;
                best_distance = distance;
            }
            arc = self.next[arc as usize];
        }
        if best != NONE {
            self.parent[node] = best;
            self.stamp[node] = self.time;
            self.distance[node] = best_distance + 1;
            return;
        }
        let mut arc = self.first[node];
        while arc != NONE {
            let other = self.head[arc as usize] as usize;
            if self.parent[other] != NONE && self.in_sink[other] == in_sink {
                if self.usable(arc ^ 1, in_sink) > 0 {
                    self.activate(other);
                }
                let above = self.parent[other];
                if above < ORPHAN && self.head[above as usize] as usize == node {
                    self.parent[other] = ORPHAN;
                    self.orphans.push_back(other as u32);
                }
            }
            arc = self.next[arc as usize];
        }
        self.parent[node] = NONE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn brute_force(n: usize, terminals: &[(i64, i64)], edges: &[(usize, usize, i64, i64)]) -> i64 {
        (0u32..1 << n)
            .map(|side| {
                let source = |v: usize| side >> v & 1 == 1;
                let t: i64 =
                    terminals.iter().enumerate().map(|(v, &(s, t))| if source(v) { t } else { s }).sum();
                let e: i64 = edges
                    .iter()
                    .map(|&(a, b, f, r)| match (source(a), source(b)) {
                        (true, false) => f,
                        (false, true) => r,
                        _ => 0,
                    })
                    .sum();
                t + e
            })
            .min()
            .unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn flow_equals_the_smallest_cut(
            n in 1usize..=12,
            terminals in prop::collection::vec((0i64..20, 0i64..20), 12),
            edges in prop::collection::vec((0usize..12, 0usize..12, 0i64..15, 0i64..15), 0..40),
        ) {
            let terminals = &terminals[..n];
            let edges: Vec<_> = edges.into_iter().map(|(a, b, f, r)| (a % n, b % n, f, r)).filter(|e| e.0 != e.1).collect();
            let mut graph = MaxFlow::new(n, edges.len());
            for (v, &(s, t)) in terminals.iter().enumerate() {
                graph.add_terminal(v, s, t);
            }
            for &(a, b, f, r) in &edges {
                graph.add_edge(a, b, f, r);
            }
            let flow = graph.solve();
            prop_assert_eq!(flow, brute_force(n, terminals, &edges));
            // The reported sides must themselves be a cut of that value.
            let cut: i64 = terminals.iter().enumerate().map(|(v, &(s, t))| if graph.is_source(v) { t } else { s }).sum::<i64>()
                + edges.iter().map(|&(a, b, f, r)| match (graph.is_source(a), graph.is_source(b)) {
                    (true, false) => f,
                    (false, true) => r,
                    _ => 0,
                }).sum::<i64>();
            prop_assert_eq!(cut, flow);
        }
    }
}
