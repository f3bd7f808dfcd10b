//! Block-sparse visibility: which blocks of keys each block of queries sees.

use crate::error::{KernelError, Result};

/// Compressed rows of key blocks, one row a plane and block of queries.
///
/// A plane is the pattern of one sequence and head; problem `sequence · heads + head` has plane
/// `problem % planes`, so one plane serves all, `heads` planes give each head its own. Cloning is
/// cheap and keeps the copy on the card.
#[derive(Debug, Clone)]
pub struct BlockList(std::sync::Arc<Inner>);

#[derive(Debug)]
struct Inner {
    block: [usize; 2],
    extents: [usize; 2],
    planes: usize,
    start: Vec<i32>,
    index: Vec<i32>,
    #[cfg(feature = "cuda")]
    on_card: crate::cuda::attention::CardCopy,
}

impl BlockList {
    /// Blocks of `block[0]` queries by `block[1]` keys over `extents` (queries, keys). Row
    /// `plane · rows + i` holds the ascending key blocks that query block `i` sees.
    ///
    /// # Errors
    /// Empty blocks, no plane, another number of rows, blocks out of range or order, or more than
    /// `i32::MAX` of them.
    pub fn new(block: [usize; 2], extents: [usize; 2], planes: usize, rows: &[Vec<usize>]) -> Result<Self> {
        let wrong = |expected: String, got: usize| Err(KernelError::shape("block list", expected, got));
        if block.contains(&0) || planes == 0 {
            return wrong("blocks of at least one token and at least one plane".into(), planes);
        }
        let (tall, wide) = (extents[0].div_ceil(block[0]), extents[1].div_ceil(block[1]));
        if Some(rows.len()) != planes.checked_mul(tall) {
            return wrong(format!("{planes} planes of {tall} rows"), rows.len());
        }
        let (mut start, mut index) = (vec![0], Vec::new());
        for row in rows {
            if row.windows(2).any(|pair| pair[0] >= pair[1]) || row.last().is_some_and(|last| *last >= wide) {
                return wrong(format!("ascending blocks below {wide}"), row.last().copied().unwrap_or(0));
            }
            index.extend(row.iter().map(|block| *block as i32));
            start.push(index.len() as i32);
        }
        if i32::try_from(index.len()).is_err() || i32::try_from(wide).is_err() {
            return wrong("fewer than 2^31 blocks".into(), index.len());
        }
        Ok(Self(std::sync::Arc::new(Inner {
            block,
            extents,
            planes,
            start,
            index,
            #[cfg(feature = "cuda")]
            on_card: Default::default(),
        })))
    }

    /// The list of every block for which `seen(plane, query block, key block)`.
    ///
    /// # Errors
    /// As [`BlockList::new`].
    pub fn from_fn(
        block: [usize; 2],
        extents: [usize; 2],
        planes: usize,
        seen: impl Fn(usize, usize, usize) -> bool,
    ) -> Result<Self> {
        let (tall, wide) = (extents[0].div_ceil(block[0].max(1)), extents[1].div_ceil(block[1].max(1)));
        let rows: Vec<Vec<usize>> = (0..planes)
            .flat_map(|plane| (0..tall).map(move |i| (plane, i)))
            .map(|(plane, i)| (0..wide).filter(|j| seen(plane, i, *j)).collect())
            .collect();
        Self::new(block, extents, planes, &rows)
    }

    /// Tokens of a block: queries, keys.
    pub fn block(&self) -> [usize; 2] {
        self.0.block
    }

    /// Queries and keys the list is for.
    pub fn extents(&self) -> [usize; 2] {
        self.0.extents
    }

    /// Patterns the list holds.
    pub fn planes(&self) -> usize {
        self.0.planes
    }

    /// Seen blocks over all blocks, 0..=1.
    pub fn density(&self) -> f64 {
        let all = (self.0.start.len() - 1) * self.0.extents[1].div_ceil(self.0.block[1]);
        if all == 0 { 0.0 } else { self.0.index.len() as f64 / all as f64 }
    }

    /// The key blocks that a block of queries of a problem sees, ascending.
    pub(crate) fn row(&self, problem: usize, query_block: usize) -> &[i32] {
        let tall = self.0.extents[0].div_ceil(self.0.block[0]);
        let row = problem % self.0.planes * tall + query_block;
        let at = |i: usize| self.0.start.get(i).map_or(0, |at| *at as usize);
        self.0.index.get(at(row)..at(row + 1)).unwrap_or(&[])
    }

    /// Whether a problem's query sees a key.
    pub(crate) fn sees(&self, problem: usize, query: usize, key: usize) -> bool {
        let wanted = (key / self.0.block[1]) as i32;
        self.row(problem, query / self.0.block[0]).binary_search(&wanted).is_ok()
    }

    #[cfg(feature = "cuda")]
    pub(crate) fn parts(&self) -> (&[i32], &[i32], &crate::cuda::attention::CardCopy) {
        (&self.0.start, &self.0.index, &self.0.on_card)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_says_what_it_was_given() {
        let list = BlockList::from_fn([4, 8], [10, 20], 2, |plane, i, j| (plane + i + j) % 2 == 0).unwrap();
        assert_eq!(list.row(0, 0), [0, 2]);
        assert_eq!(list.row(3, 0), [1]);
        assert!(list.sees(0, 3, 19) && !list.sees(0, 4, 19) && !list.sees(1, 0, 0));
        assert!((list.density() - 0.5).abs() < 1e-9);
    }

    #[test]
    fn wrong_lists_are_refused() {
        let rows = |row: Vec<usize>| BlockList::new([4, 4], [4, 8], 1, &[row]);
        assert!(rows(vec![0, 1]).is_ok() && rows(vec![]).is_ok());
        assert!(rows(vec![1, 0]).is_err() && rows(vec![1, 1]).is_err() && rows(vec![2]).is_err());
        assert!(BlockList::new([4, 4], [8, 8], 1, &[vec![0]]).is_err());
        assert!(BlockList::new([0, 4], [8, 8], 1, &[vec![0]]).is_err());
        assert!(BlockList::new([4, 4], [8, 8], 0, &[]).is_err());
    }
}
