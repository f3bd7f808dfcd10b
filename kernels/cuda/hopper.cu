// Tiled attention on Hopper: warp-group matrix products fed by the tensor copy engine.
//
// A persistent block has one producer thread (for lists a second one, for values, so that an item's first keys
// need not wait for the values of the item before) and two or three consumer warp groups of 64 queries. The
// scores of the next key tile are issued before the values of this one, so that the softmax runs
// under a product, and the groups take turns at issuing, so that one group's softmax runs under the
// others' products (FlashAttention-3, section 3). The reference of the exponentials moves only when
// it must: weights up to 2^8 are as exact as those up to 1. With two groups no maximum is taken at all
// after the first tile: sums that grow too large tell that the reference must move, and the warp then
// makes the scores once more. Measured on the card and left out: a part of the exponentials as a
// polynomial, sums by matrix instructions, scores two tiles ahead; no maximum with three groups. Head dimensions are cut into boxes of 64 columns; the copy engine fills
// what lies past a row's end with zeros, and no product is done there.
// Compile for sm_90a with -DELEMENT=__half or __nv_bfloat16.
#include <cuda.h>

#include "mbarrier.cuh"
#include "wgmma.cuh"

struct HopperParams {
  CUtensorMap q, k, v;  // [batch, inner, head, token, dim], boxes of 64 columns
  AttentionParams p;
};

__device__ __forceinline__ void copy_box(uint32_t to, const CUtensorMap *map, uint32_t barrier, int column, int token,
                                         int head, int inner, int batch) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6, "
      "%7}], [%2];" ::"r"(to),
      "l"(map), "r"(barrier), "r"(column), "r"(token), "r"(head), "r"(inner), "r"(batch)
      : "memory");
}
// Turns of the consumer groups: barrier 1 + group of the hardware, 128 waiting threads and 128 of the group before.
__device__ __forceinline__ void turn_wait(int group) {
  asm volatile("bar.sync %0, 256;" ::"r"(group + 1) : "memory");
}
__device__ __forceinline__ void turn_pass(int group) {
  asm volatile("bar.arrive %0, 256;" ::"r"(group + 1) : "memory");
}

__device__ __forceinline__ void load4(uint32_t (&r)[4], uint32_t at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(at));
}

// Key tiles of a query tile, and where it is.
struct Work {
  Place at;
  unsigned problem;
  int first, count;
};

// Entries of the list of blocks that a query tile has.
struct Listed {
  int from, end;
};

// Sums of a thread's weights up to which references may stay: f16 holds weights up to 65,504.
constexpr float MOST = 4096.f;

// Heads whose causal tiles run together: the longest of them first.
constexpr unsigned TOGETHER = 8;

template <int QUERY_TILE, int KEY_TILE>
__device__ __forceinline__ Work work_of(const AttentionParams &p, unsigned item, unsigned items) {
  Work w;
  int tile;
  if (p.mask == MASK_CAUSAL) {
    // Long tiles first, and rounds over the blocks run to and fro, so that all end together.
    const unsigned round = item / gridDim.x, column = item - round * gridDim.x;
    if ((round & 1) && round < items / gridDim.x) item = round * gridDim.x + gridDim.x - 1 - column;
    const unsigned run = item / (TOGETHER * p.tiles), rest = item - run * TOGETHER * p.tiles;
    const unsigned heads = min(TOGETHER, items / p.tiles - run * TOGETHER);
    tile = p.tiles - 1 - rest / heads;
    w.problem = run * TOGETHER + rest % heads;
  } else {
    w.problem = item / p.tiles;
    tile = item - w.problem * p.tiles;
  }
  w.at = place_of(p, w.problem);
  w.first = tile * QUERY_TILE;
  const int seen = p.mask == MASK_CAUSAL ? min(p.keys, w.first + QUERY_TILE + p.keys - p.queries) : p.keys;
  w.count = (seen + KEY_TILE - 1) / KEY_TILE;
  return w;
}

// Keys from..end of a tile; in a list counted from its block's first key.
struct Span {
  int from, end;
};

// Lane t of a quad holds columns 2t of four blocks of 8; afterwards it holds block t whole.
__device__ __forceinline__ void quad_transpose(uint32_t (&x)[4], int t) {
  const bool odd = t & 1, high = t & 2;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const uint32_t got = __shfl_xor_sync(~0u, odd ? x[i] : x[i + 1], 1);
    if (odd) x[i] = got;
    else x[i + 1] = got;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t got = __shfl_xor_sync(~0u, high ? x[i] : x[i + 2], 2);
    if (high) x[i] = got;
    else x[i + 2] = got;
  }
}

template <typename T, int D, int KEY_TILE, int GROUPS, int Q_STAGES, int K_STAGES, bool BLOCKS>
__device__ __forceinline__ void hopper_body(const HopperParams &args) {
  constexpr int BOXES = (D + 63) / 64, QUERY_TILE = 64 * GROUPS, ROW = 128, V_STAGES = 2;
  constexpr int Q_BOX = 64 * ROW, KV_BOX = KEY_TILE * ROW, TILE_BYTES = BOXES * KV_BOX;
  constexpr int Q_BYTES = GROUPS * BOXES * Q_BOX;
  constexpr int STEPS = (D + 15) / 16, PAIRS = KEY_TILE / 16, PER_BOX = 4;
  // No maximum after the first tile; needs the third stage of keys, which are kept until the sums are known.
  constexpr bool FREE = K_STAGES == 3;
  const AttentionParams &p = args.p;
  extern __shared__ char memory[];
  const uint32_t base = (shared_address(memory) + 1023) & ~1023u;
  const uint32_t queries_at = base, keys_at = queries_at + Q_STAGES * Q_BYTES;
  const uint32_t values_at = keys_at + K_STAGES * TILE_BYTES, bars = values_at + V_STAGES * TILE_BYTES;
  const uint32_t q_full = bars, q_empty = q_full + 8 * Q_STAGES, k_full = q_empty + 8 * Q_STAGES,
                 k_empty = k_full + 8 * K_STAGES, v_full = k_empty + 8 * K_STAGES, v_empty = v_full + 8 * V_STAGES;
  const int group = __shfl_sync(~0u, threadIdx.x / 128, 0);
  const unsigned items = static_cast<unsigned>(p.batch * p.inner) * p.heads * p.tiles;
  const int each = BLOCKS ? (p.block_k + KEY_TILE - 1) / KEY_TILE : 1;  // tiles of a listed block
  if (BLOCKS && threadIdx.x == 128 * GROUPS) {
    for (const CUtensorMap *map : {&args.q, &args.k, &args.v}) asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
  }
  if (threadIdx.x == 0) {
    for (int s = 0; s < Q_STAGES; ++s) barrier_init(q_full + 8 * s, 1), barrier_init(q_empty + 8 * s, 4 * GROUPS);
    for (int s = 0; s < K_STAGES; ++s) barrier_init(k_full + 8 * s, 1), barrier_init(k_empty + 8 * s, 4 * GROUPS);
    for (int s = 0; s < V_STAGES; ++s) barrier_init(v_full + 8 * s, 1), barrier_init(v_empty + 8 * s, 4 * GROUPS);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  }
  __syncthreads();

  // An item's list and the block of its first tile are read during the item before: two reads in a row.
  const int rows = BLOCKS ? (p.queries + p.block_q - 1) / p.block_q : 0, tiles_a_row = BLOCKS ? p.block_q / QUERY_TILE : 1;
  const auto list_of = [&](unsigned item) -> Listed {
    if (!BLOCKS || item >= items) return {0, 0};
    const unsigned problem = item / p.tiles;
    unsigned row = item - problem * p.tiles;
    if (tiles_a_row > 1) row /= tiles_a_row;
    row += p.block_planes == 1 ? 0 : problem % p.block_planes * rows;
    return {p.block_start[row], p.block_start[row + 1]};
  };
  const auto first_block = [&](Listed l) { return BLOCKS && l.from < l.end ? p.block_index[l.end - 1] : 0; };

  if (group == GROUPS) {
    if constexpr (GROUPS == 2) asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
    else asm volatile("setmaxnreg.dec.sync.aligned.u32 32;");
    const bool brings_keys = threadIdx.x == 128 * GROUPS, brings_values = threadIdx.x == 128 * GROUPS + (BLOCKS ? 32 : 0);
    if (!brings_keys && !brings_values) return;
    int qs = 0, ks = 0, vs = 0;
    uint32_t q_parity = 1, k_parity = 1, v_parity = 1;
    Listed coming = list_of(blockIdx.x);
    int coming_block = first_block(coming);
    for (unsigned item = blockIdx.x; item < items; item += gridDim.x) {
      Work w = work_of<QUERY_TILE, KEY_TILE>(p, item, items);
      const Listed listed = coming;
      int entry = listed.end - 1, block = coming_block, part = each - 1;
      coming = list_of(item + gridDim.x);
      if (BLOCKS) w.count = (listed.end - listed.from) * each;
      if (BLOCKS && w.count == 0) {
        coming_block = first_block(coming);
        continue;
      }
      const int kv_head = w.at.head / p.group;
      if (brings_keys) {
        barrier_wait(q_empty + 8 * qs, q_parity);
        barrier_expect(q_full + 8 * qs, Q_BYTES);
        for (int i = 0; i < GROUPS * BOXES; ++i) {
          copy_box(queries_at + qs * Q_BYTES + i * Q_BOX, &args.q, q_full + 8 * qs, i % BOXES * 64,
                   w.first + i / BOXES * 64, w.at.head, w.at.inner, w.at.batch);
        }
        if (++qs == Q_STAGES) qs = 0, q_parity ^= 1;
      }
      for (int n = w.count - 1; n >= 0; --n) {
        const int from = BLOCKS ? block * p.block_k + part * KEY_TILE : n * KEY_TILE;
        if (BLOCKS && --part < 0) {
          part = each - 1;
          if (n > 0) block = p.block_index[--entry];
        }
        if (brings_keys) {
          barrier_wait(k_empty + 8 * ks, k_parity);
          barrier_expect(k_full + 8 * ks, TILE_BYTES);
          for (int b = 0; b < BOXES; ++b) {
            copy_box(keys_at + ks * TILE_BYTES + b * KV_BOX, &args.k, k_full + 8 * ks, 64 * b, from, kv_head,
                     w.at.inner, w.at.batch);
          }
          if (++ks == K_STAGES) ks = 0, k_parity ^= 1;
        }
        if (brings_values) {
          barrier_wait(v_empty + 8 * vs, v_parity);
          barrier_expect(v_full + 8 * vs, TILE_BYTES);
          for (int b = 0; b < BOXES; ++b) {
            copy_box(values_at + vs * TILE_BYTES + b * KV_BOX, &args.v, v_full + 8 * vs, 64 * b, from, kv_head,
                     w.at.inner, w.at.batch);
          }
          if (++vs == V_STAGES) vs = 0, v_parity ^= 1;
        }
        if (n == w.count - 1) coming_block = first_block(coming);
      }
    }
  } else {
    if constexpr (GROUPS == 2) asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
    else asm volatile("setmaxnreg.inc.sync.aligned.u32 160;");
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, warp = threadIdx.x / 32 % 4;
    const int after = group + 1 == GROUPS ? 0 : group + 1;
    int qs = 0, ks = 0, vs = 0;
    uint32_t q_parity = 0, k_parity = 0, v_parity = 0;
    const float scale = p.scale_log2;
    if (group == GROUPS - 1) turn_pass(0);
    const auto out_at = [&](unsigned problem) {
      const Place at = place_of(p, problem);
      return static_cast<T *>(p.out) + offset_of(p.out_stride, at, at.head);
    };
    unsigned item = blockIdx.x;
    Listed listed = list_of(item), coming = listed;
    int block = first_block(listed), part = 0, end = 0;
    Work w;
    int query;
    float s[KEY_TILE / 2], acc[D / 2];
    uint32_t weights[PAIRS][4];
    // References of the exponentials, in units of log2; -inf before the first visible key.
    float base0, base8, sum0, sum8, shrink0 = 1.f, shrink8 = 1.f;
    bool moved, unseen;

    // The next item that has keys becomes `w`; those without get their zeros. False when there is none.
    const auto open = [&] {
      for (; item < items; item += gridDim.x, listed = coming, block = first_block(coming)) {
        w = work_of<QUERY_TILE, KEY_TILE>(p, item, items);
        coming = list_of(item + gridDim.x);
        if (BLOCKS) w.count = (listed.end - listed.from) * each;
        query = w.first + 64 * group + 16 * warp + g;
        if constexpr (BLOCKS) {
          if (w.count == 0) {
            for (int row = query; row <= query + 8 && row < p.queries; row += 8) {
              uint32_t *to = reinterpret_cast<uint32_t *>(out_at(w.problem) + row * p.out_stride[3]);
              for (int i = t; i < p.dim / 2; i += 4) to[i] = 0;
              if (p.lse && t == 0) p.lse[static_cast<long long>(w.problem) * p.queries + row] = -INFINITY;
            }
            continue;
          }
        }
        break;
      }
      // Only the last block of an ascending list can reach beyond the keys, and it comes first.
      part = each - 1, end = BLOCKS ? min(p.block_k, p.keys - block * p.block_k) : p.keys;
      base0 = base8 = -INFINITY, sum0 = sum8 = 0.f, unseen = true;
      return item < items;
    };
    const auto span_of = [&](int n) {
      const Span span = {(BLOCKS ? part : n) * KEY_TILE, end};
      if (BLOCKS && --part < 0) part = each - 1, end = p.block_k;
      return span;
    };
    // `acc` times f, as rows of the item that ended.
    const auto store = [&](T *out, int row, int e, float f) {
      char *to = reinterpret_cast<char *>(out + row * p.out_stride[3]);
      const bool there = row < p.queries;
#pragma unroll
      for (int i = 0; i + 4 <= D / 8; i += 4) {
        uint32_t x[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) x[j] = pack<T>(acc[4 * (i + j) + e] * f, acc[4 * (i + j) + e + 1] * f);
        quad_transpose(x, t);
        if (there && 8 * (i + t) < p.dim) *reinterpret_cast<uint4 *>(to + 16 * (i + t)) = make_uint4(x[0], x[1], x[2], x[3]);
      }
#pragma unroll
      for (int i = D / 32 * 4; i < D / 8; ++i) {
        if (there && 8 * i < p.dim) reinterpret_cast<uint32_t *>(to)[4 * i + t] = pack<T>(acc[4 * i + e] * f, acc[4 * i + e + 1] * f);
      }
    };

    const auto scores = [&](int stage) {
      const uint64_t a0 = matrix_at(queries_at + qs * Q_BYTES + group * BOXES * Q_BOX, 16);
      const uint64_t b0 = matrix_at(keys_at + stage * TILE_BYTES, 16);
      wgmma_fence();
#pragma unroll
      for (int i = 0; i < STEPS; ++i) {
        const uint64_t b = b0 + (i / PER_BOX * KV_BOX + i % PER_BOX * 32) / 16;
        wgmma_scores<T>(s, a0 + (i / PER_BOX * Q_BOX + i % PER_BOX * 32) / 16, b, i > 0);
      }
      wgmma_commit();
    };
    const auto products = [&](int stage) {
      const uint64_t b0 = matrix_at(values_at + stage * TILE_BYTES, KV_BOX);
      wgmma_fence();
#pragma unroll
      for (int i = 0; i < PAIRS; ++i) wgmma_values<T>(acc, weights[i], b0 + i * 16 * ROW / 16, 1);
      wgmma_commit();
    };
    // The same scores by this warp alone.
    const auto scores_again = [&](int stage) {
      const uint32_t from = queries_at + qs * Q_BYTES + group * BOXES * Q_BOX + (16 * warp + lane % 16) * ROW;
      const uint32_t keys = keys_at + stage * TILE_BYTES + (lane % 8 + lane / 16 * 8) * ROW;
#pragma unroll
      for (int j = 0; j < PAIRS; ++j) {
        float c0[4] = {}, c8[4] = {};
#pragma unroll
        for (int i = 0; i < STEPS; ++i) {
          uint32_t a[4], b[4];
          load4(a, from + i / PER_BOX * Q_BOX + ((i % PER_BOX * 2 + lane / 16) ^ lane % 8) * 16);
          load4(b, keys + 16 * j * ROW + i / PER_BOX * KV_BOX + ((i % PER_BOX * 2 + lane / 8 % 2) ^ lane % 8) * 16);
          mma16<T>(c0, a[0], a[1], a[2], a[3], b[0], b[1]), mma16<T>(c8, a[0], a[1], a[2], a[3], b[2], b[3]);
        }
#pragma unroll
        for (int e = 0; e < 4; ++e) s[8 * j + e] = c0[e], s[8 * j + 4 + e] = c8[e];
      }
    };
    const auto hide = [&](Span span) {
      const bool causal = !BLOCKS && p.mask == MASK_CAUSAL;
      const int place = p.keys - p.queries;
      if (span.from + KEY_TILE > (causal ? w.first + 64 * group + place : span.end)) {
        const int before = span.from + 2 * t, end = span.end - 1;
        const int last = (causal ? min(query + place, end) : end) - before;
        const int last8 = (causal ? min(query + 8 + place, end) : end) - before;
#pragma unroll
        for (int j = 0; j < KEY_TILE / 8; ++j) {
          if (8 * j > last) s[4 * j] = -INFINITY;
          if (8 * j + 1 > last) s[4 * j + 1] = -INFINITY;
          if (8 * j > last8) s[4 * j + 2] = -INFINITY;
          if (8 * j + 1 > last8) s[4 * j + 3] = -INFINITY;
        }
      }
    };
    // Moves the references to the running maximum, unless they may stay.
    const auto lift = [&](bool may_stay) {
      float new0 = max_nan(s[0], s[1]), new8 = max_nan(s[2], s[3]);
#pragma unroll
      for (int j = 1; j < KEY_TILE / 8; ++j) {
        new0 = max_nan(new0, max_nan(s[4 * j], s[4 * j + 1]));
        new8 = max_nan(new8, max_nan(s[4 * j + 2], s[4 * j + 3]));
      }
      new0 = max_nan(row_max(new0) * scale, base0), new8 = max_nan(row_max(new8) * scale, base8);
      // Not less, so that NaN moves the reference.
      moved = !may_stay || __any_sync(~0u, !(new0 - base0 <= 8.f) || !(new8 - base8 <= 8.f));
      if (moved) {
        shrink0 = new0 == -INFINITY ? 1.f : exp2_fast(base0 - new0);
        shrink8 = new8 == -INFINITY ? 1.f : exp2_fast(base8 - new8);
        base0 = new0, base8 = new8;
        sum0 *= shrink0, sum8 *= shrink8;
        if (FREE) unseen = __any_sync(~0u, base0 == -INFINITY || base8 == -INFINITY);
      }
    };
    // Scores to weights; tells their sums.
    const auto weigh = [&](float (&sums)[2]) {
      const float minus0 = base0 == -INFINITY ? 0.f : -base0, minus8 = base8 == -INFINITY ? 0.f : -base8;
#pragma unroll
      for (int j = 0; j < KEY_TILE / 8; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) s[4 * j + e] = exp2_fast(fmaf(s[4 * j + e], scale, e < 2 ? minus0 : minus8));
      }
      float add0[2] = {s[0] + s[1], s[4] + s[5]}, add8[2] = {s[2] + s[3], s[6] + s[7]};
#pragma unroll
      for (int j = 2; j < KEY_TILE / 8; ++j) {
        add0[j % 2] += s[4 * j], add0[j % 2] += s[4 * j + 1], add8[j % 2] += s[4 * j + 2], add8[j % 2] += s[4 * j + 3];
      }
      sums[0] = add0[0] + add0[1], sums[1] = add8[0] + add8[1];
    };
    // Scores in `s` to weights in `s`; the sums move on.
    const auto soften = [&](Span span, int stage, bool first) {
      float sums[2];
      hide(span);
      if (!FREE) lift(!first);
      else if (unseen) lift(false);
      else moved = false;
      weigh(sums);
      // A sum beyond this, NaN or infinity: the weights came near the end of the element's range.
      if (FREE && !moved && __any_sync(~0u, !(sums[0] <= MOST) || !(sums[1] <= MOST))) {
        scores_again(stage);
        hide(span);
        lift(false);
        weigh(sums);
      }
      sum0 += sums[0], sum8 += sums[1];
    };
    const auto keep = [&] {
#pragma unroll
      for (int i = 0; i < PAIRS; ++i) {
#pragma unroll
        for (int e = 0; e < 4; ++e) weights[i][e] = pack<T>(s[8 * i + 2 * e], s[8 * i + 2 * e + 1]);
      }
    };

    // The stage whose scores are in `s`.
    int held = 0;
    const auto take = [&] {
      settle(s);
      held = ks;
      if (++ks == K_STAGES) ks = 0, k_parity ^= 1;
      if (!FREE && lane == 0) barrier_arrive(k_empty + 8 * held);
    };
    const auto soften_next = [&](int n, bool first) {
      soften(span_of(n), held, first);
      if (FREE && lane == 0) barrier_arrive(k_empty + 8 * held);
    };
    const auto give_values = [&] {
      settle(acc);
      if (lane == 0) barrier_arrive(v_empty + 8 * vs);
      if (++vs == V_STAGES) vs = 0, v_parity ^= 1;
    };

    bool more = open(), begun = false;
    while (more) {
      if (!begun) {
        barrier_wait(q_full + 8 * qs, q_parity);
        barrier_wait(k_full + 8 * ks, k_parity);
        turn_wait(group);
        scores(ks);
        turn_pass(after);
        wgmma_wait<0>();
        take();
        soften_next(w.count - 1, true);
        keep();
      }
#pragma unroll
      for (int i = 0; i < D / 2; ++i) acc[i] = 0.f;
      for (int n = w.count - 2; n >= 0; --n) {
        barrier_wait(k_full + 8 * ks, k_parity);
        turn_wait(group);
        scores(ks);
        barrier_wait(v_full + 8 * vs, v_parity);
        products(vs);
        turn_pass(after);
        wgmma_wait<1>();
        take();
        soften_next(n, false);
        wgmma_wait<0>();
        give_values();
        if (moved) {
#pragma unroll
          for (int i = 0; i < D / 8; ++i) {
            acc[4 * i] *= shrink0, acc[4 * i + 1] *= shrink0, acc[4 * i + 2] *= shrink8, acc[4 * i + 3] *= shrink8;
          }
        }
        keep();
      }
      if (lane == 0) barrier_arrive(q_empty + 8 * qs);
      if (++qs == Q_STAGES) qs = 0, q_parity ^= 1;
      sum0 = row_sum(sum0), sum8 = row_sum(sum8);
      const float f0 = sum0 == 0.f ? 0.f : 1.f / sum0, f8 = sum8 == 0.f ? 0.f : 1.f / sum8;
      if (p.lse && t == 0) {
        float *lse = p.lse + static_cast<long long>(w.problem) * p.queries;
        if (query < p.queries) lse[query] = log_sum(base0, sum0);
        if (query + 8 < p.queries) lse[query + 8] = log_sum(base8, sum8);
      }
      T *out = out_at(w.problem);
      const int row = query;
      item += gridDim.x, listed = coming, block = first_block(coming);
      more = open();
      begun = BLOCKS && more;
      if (begun) {
        // Lists are short: the last products run beside the next item's first scores and their softmax.
        barrier_wait(q_full + 8 * qs, q_parity);
        barrier_wait(k_full + 8 * ks, k_parity);
        turn_wait(group);
        scores(ks);
        barrier_wait(v_full + 8 * vs, v_parity);
        products(vs);
        turn_pass(after);
        wgmma_wait<1>();
        take();
        soften_next(w.count - 1, true);
      } else {
        barrier_wait(v_full + 8 * vs, v_parity);
        turn_wait(group);
        products(vs);
        turn_pass(after);
      }
      wgmma_wait<0>();
      give_values();
      store(out, row, 0, f0), store(out, row + 8, 2, f8);
      if (begun) keep();
    }
  }
}

#define HOPPER(NAME, D, KEY_TILE, GROUPS, Q_STAGES, K_STAGES, BLOCKS)                   \
  extern "C" __global__ void __launch_bounds__(128 * (GROUPS + 1), 1)                   \
      attention_##NAME##_d##D(const __grid_constant__ HopperParams args) {              \
    hopper_body<ELEMENT, D, KEY_TILE, GROUPS, Q_STAGES, K_STAGES, BLOCKS>(args);        \
  }
HOPPER(hopper, 40, 128, 3, 2, 2, false)
HOPPER(hopper, 64, 128, 3, 2, 2, false)
HOPPER(hopper, 72, 128, 3, 1, 2, false)
HOPPER(hopper, 80, 112, 3, 2, 2, false)
HOPPER(hopper, 128, 128, 2, 2, 3, false)
HOPPER(hopper, 160, 96, 2, 1, 2, false)
// Lists come in blocks of 128 queries or a multiple.
HOPPER(blocks, 40, 128, 2, 2, 3, true)
HOPPER(blocks, 64, 128, 2, 2, 3, true)
HOPPER(blocks, 80, 128, 2, 2, 3, true)
HOPPER(blocks, 128, 128, 2, 2, 3, true)
HOPPER(blocks, 160, 96, 2, 1, 2, true)
