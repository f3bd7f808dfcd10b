// Tiled attention on Hopper: warp-group matrix products fed by the tensor copy engine.
//
// A persistent block has one producer warp and two or three consumer warp groups of 64 queries. The
// scores of the next key tile are issued before the values of this one, so that the softmax runs
// under a product (FlashAttention-3, section 3). Head dimensions are cut into boxes of 64 columns;
// the copy engine fills what lies past a row's end with zeros, and no product is done there.
// Compile for sm_90a with -DELEMENT=__half or __nv_bfloat16.
#include <cuda.h>

#include "wgmma.cuh"

struct HopperParams {
  CUtensorMap q, k, v;  // [batch, inner, head, token, dim], boxes of 64 columns
  AttentionParams p;
};

__device__ __forceinline__ void barrier_init(uint32_t at, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(count) : "memory");
}
__device__ __forceinline__ void barrier_expect(uint32_t at, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(at), "r"(bytes) : "memory");
}
__device__ __forceinline__ void barrier_arrive(uint32_t at) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at) : "memory");
}
__device__ __forceinline__ void barrier_wait(uint32_t at, uint32_t parity) {
  asm volatile(
      "{ .reg .pred p; AGAIN_%=: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1; @p bra DONE_%=; bra AGAIN_%=; DONE_%=: }" ::"r"(at),
      "r"(parity)
      : "memory");
}
__device__ __forceinline__ void copy_box(uint32_t to, const CUtensorMap *map, uint32_t barrier, int column, int token,
                                         int head, int inner, int batch) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6, "
      "%7}], [%2];" ::"r"(to),
      "l"(map), "r"(barrier), "r"(column), "r"(token), "r"(head), "r"(inner), "r"(batch)
      : "memory");
}

// Key tiles of a query tile, and where it is.
struct Work {
  Place at;
  unsigned problem;
  int first, count;
};

template <int QUERY_TILE, int KEY_TILE>
__device__ __forceinline__ Work work_of(const AttentionParams &p, unsigned item) {
  Work w;
  w.problem = item / p.tiles;
  const int tile = item - w.problem * p.tiles;
  w.at = place_of(p, w.problem);
  // The longest tiles of a causal mask first.
  w.first = (p.mask == MASK_CAUSAL ? p.tiles - 1 - tile : tile) * QUERY_TILE;
  const int seen = p.mask == MASK_CAUSAL ? min(p.keys, w.first + QUERY_TILE + p.keys - p.queries) : p.keys;
  w.count = (seen + KEY_TILE - 1) / KEY_TILE;
  return w;
}

template <typename T, int D, int KEY_TILE, int GROUPS>
__device__ __forceinline__ void hopper_body(const HopperParams &args) {
  constexpr int BOXES = (D + 63) / 64, QUERY_TILE = 64 * GROUPS, STAGES = 2;
  constexpr int Q_BOX = 64 * 128, KV_BOX = KEY_TILE * 128, TILE_BYTES = BOXES * KV_BOX;
  constexpr int STEPS = (D + 15) / 16, PAIRS = KEY_TILE / 16;
  const AttentionParams &p = args.p;
  extern __shared__ char memory[];
  const uint32_t base = (shared_address(memory) + 1023) & ~1023u;
  const uint32_t queries_at = base, keys_at = queries_at + GROUPS * BOXES * Q_BOX;
  const uint32_t values_at = keys_at + STAGES * TILE_BYTES, bars = values_at + STAGES * TILE_BYTES;
  const uint32_t q_full = bars, q_empty = bars + 8;
  const uint32_t k_full = bars + 16, k_empty = k_full + 8 * STAGES, v_full = k_empty + 8 * STAGES,
                 v_empty = v_full + 8 * STAGES;
  const int group = threadIdx.x / 128;
  const unsigned items = static_cast<unsigned>(p.batch * p.inner) * p.heads * p.tiles;
  if (threadIdx.x == 0) {
    barrier_init(q_full, 1), barrier_init(q_empty, 4 * GROUPS);
    for (int s = 0; s < STAGES; ++s) {
      barrier_init(k_full + 8 * s, 1), barrier_init(k_empty + 8 * s, 4 * GROUPS);
      barrier_init(v_full + 8 * s, 1), barrier_init(v_empty + 8 * s, 4 * GROUPS);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  }
  __syncthreads();

  if (group == GROUPS) {
    if constexpr (GROUPS == 2) asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
    else asm volatile("setmaxnreg.dec.sync.aligned.u32 32;");
    if (threadIdx.x != 128 * GROUPS) return;
    int turn = 0;  // key tiles so far
    uint32_t q_parity = 1;
    for (unsigned item = blockIdx.x; item < items; item += gridDim.x) {
      const Work w = work_of<QUERY_TILE, KEY_TILE>(p, item);
      const int kv_head = w.at.head / p.group;
      barrier_wait(q_empty, q_parity);
      q_parity ^= 1;
      barrier_expect(q_full, GROUPS * BOXES * Q_BOX);
      for (int i = 0; i < GROUPS * BOXES; ++i) {
        copy_box(queries_at + i * Q_BOX, &args.q, q_full, i % BOXES * 64, w.first + i / BOXES * 64, w.at.head,
                 w.at.inner, w.at.batch);
      }
      for (int n = w.count - 1; n >= 0; --n, ++turn) {
        const int s = turn % STAGES;
        const uint32_t parity = (turn / STAGES & 1) ^ 1;
        barrier_wait(k_empty + 8 * s, parity);
        barrier_expect(k_full + 8 * s, TILE_BYTES);
        for (int b = 0; b < BOXES; ++b) {
          copy_box(keys_at + s * TILE_BYTES + b * KV_BOX, &args.k, k_full + 8 * s, 64 * b, n * KEY_TILE, kv_head,
                   w.at.inner, w.at.batch);
        }
        barrier_wait(v_empty + 8 * s, parity);
        barrier_expect(v_full + 8 * s, TILE_BYTES);
        for (int b = 0; b < BOXES; ++b) {
          copy_box(values_at + s * TILE_BYTES + b * KV_BOX, &args.v, v_full + 8 * s, 64 * b, n * KEY_TILE, kv_head,
                   w.at.inner, w.at.batch);
        }
      }
    }
  } else {
    if constexpr (GROUPS == 2) asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
    else asm volatile("setmaxnreg.inc.sync.aligned.u32 160;");
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, warp = threadIdx.x / 32 % 4;
    int turn = 0;
    uint32_t q_parity = 0;
    const float scale = p.scale_log2;
    for (unsigned item = blockIdx.x; item < items; item += gridDim.x) {
      const Work w = work_of<QUERY_TILE, KEY_TILE>(p, item);
      const int query = w.first + 64 * group + 16 * warp + g;
      float s[KEY_TILE / 2], acc[D / 2];
      uint32_t weights[PAIRS][4];
      float max0 = -INFINITY, max8 = -INFINITY, sum0 = 0.f, sum8 = 0.f, shrink0 = 1.f, shrink8 = 1.f;

      const auto scores = [&](int stage) {
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < STEPS; ++i) {
          const uint32_t a = queries_at + (group * BOXES + i / 4) * Q_BOX + i % 4 * 32;
          const uint32_t b = keys_at + stage * TILE_BYTES + i / 4 * KV_BOX + i % 4 * 32;
          wgmma_scores<T>(s, matrix_at(a, 16), matrix_at(b, 16), i > 0);
        }
        wgmma_commit();
      };
      const auto products = [&](int stage, bool more) {
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < PAIRS; ++i) {
          const uint32_t b = values_at + stage * TILE_BYTES + i * 2048;
          wgmma_values<T>(acc, weights[i], matrix_at(b, KV_BOX), more || i > 0);
        }
        wgmma_commit();
      };
      // Scores in `s` to weights in `s`; the running maximum moves on.
      const auto soften = [&](int n) {
        const int last = p.mask == MASK_CAUSAL ? min(query + p.keys - p.queries, p.keys - 1) : p.keys - 1;
        const bool cut = p.mask == MASK_CAUSAL ? (n + 1) * KEY_TILE > w.first + p.keys - p.queries
                                               : (n + 1) * KEY_TILE > p.keys;
        if (cut) {
          const int last8 = p.mask == MASK_CAUSAL ? min(last + 8, p.keys - 1) : last;
#pragma unroll
          for (int j = 0; j < KEY_TILE / 8; ++j) {
            const int key = n * KEY_TILE + 8 * j + 2 * t;
            if (key > last) s[4 * j] = -INFINITY;
            if (key + 1 > last) s[4 * j + 1] = -INFINITY;
            if (key > last8) s[4 * j + 2] = -INFINITY;
            if (key + 1 > last8) s[4 * j + 3] = -INFINITY;
          }
        }
        float new0 = max0, new8 = max8;
#pragma unroll
        for (int j = 0; j < KEY_TILE / 8; ++j) {
          new0 = max_nan(new0, max_nan(s[4 * j], s[4 * j + 1]));
          new8 = max_nan(new8, max_nan(s[4 * j + 2], s[4 * j + 3]));
        }
        new0 = row_max(new0), new8 = row_max(new8);
        const float base0 = new0 == -INFINITY ? 0.f : new0 * scale, base8 = new8 == -INFINITY ? 0.f : new8 * scale;
        shrink0 = exp2_fast(fmaf(max0, scale, -base0)), shrink8 = exp2_fast(fmaf(max8, scale, -base8));
        max0 = new0, max8 = new8;
        float add0 = 0.f, add8 = 0.f;
#pragma unroll
        for (int j = 0; j < KEY_TILE / 8; ++j) {
          s[4 * j] = exp2_fast(fmaf(s[4 * j], scale, -base0)), s[4 * j + 1] = exp2_fast(fmaf(s[4 * j + 1], scale, -base0));
          s[4 * j + 2] = exp2_fast(fmaf(s[4 * j + 2], scale, -base8));
          s[4 * j + 3] = exp2_fast(fmaf(s[4 * j + 3], scale, -base8));
          add0 += s[4 * j] + s[4 * j + 1], add8 += s[4 * j + 2] + s[4 * j + 3];
        }
        sum0 = fmaf(sum0, shrink0, add0), sum8 = fmaf(sum8, shrink8, add8);
      };
      const auto keep = [&] {
#pragma unroll
        for (int i = 0; i < PAIRS; ++i) {
#pragma unroll
          for (int e = 0; e < 4; ++e) weights[i][e] = pack<T>(s[8 * i + 2 * e], s[8 * i + 2 * e + 1]);
        }
      };

      barrier_wait(q_full, q_parity);
      q_parity ^= 1;
      barrier_wait(k_full + 8 * (turn % STAGES), turn / STAGES & 1);
      scores(turn % STAGES);
      wgmma_wait<0>();
      settle(s);
      if (lane == 0) barrier_arrive(k_empty + 8 * (turn % STAGES));
      soften(w.count - 1);
      keep();
#pragma unroll
      for (int i = 0; i < D / 2; ++i) acc[i] = 0.f;
      for (int n = w.count - 2; n >= 0; --n) {
        const int now = turn % STAGES, next = (turn + 1) % STAGES;
        barrier_wait(k_full + 8 * next, (turn + 1) / STAGES & 1);
        scores(next);
        barrier_wait(v_full + 8 * now, turn / STAGES & 1);
        products(now, true);
        wgmma_wait<1>();
        settle(s);
        if (lane == 0) barrier_arrive(k_empty + 8 * next);
        soften(n);
        wgmma_wait<0>();
        settle(acc);
        if (lane == 0) barrier_arrive(v_empty + 8 * now);
#pragma unroll
        for (int i = 0; i < D / 8; ++i) {
          acc[4 * i] *= shrink0, acc[4 * i + 1] *= shrink0, acc[4 * i + 2] *= shrink8, acc[4 * i + 3] *= shrink8;
        }
        keep();
        ++turn;
      }
      if (lane == 0) barrier_arrive(q_empty);
      barrier_wait(v_full + 8 * (turn % STAGES), turn / STAGES & 1);
      products(turn % STAGES, true);
      sum0 = row_sum(sum0), sum8 = row_sum(sum8);
      const float f0 = sum0 == 0.f ? 0.f : 1.f / sum0, f8 = sum8 == 0.f ? 0.f : 1.f / sum8;
      wgmma_wait<0>();
      settle(acc);
      if (lane == 0) barrier_arrive(v_empty + 8 * (turn % STAGES));
      ++turn;
      T *out = static_cast<T *>(p.out) + offset_of(p.out_stride, w.at, w.at.head);
      uint32_t *out0 = reinterpret_cast<uint32_t *>(out + query * p.out_stride[3]) + t;
      uint32_t *out8 = reinterpret_cast<uint32_t *>(out + (query + 8) * p.out_stride[3]) + t;
      if (query < p.queries) {
#pragma unroll
        for (int i = 0; i < D / 8; ++i) {
          if (8 * i < p.dim) out0[4 * i] = pack<T>(acc[4 * i] * f0, acc[4 * i + 1] * f0);
        }
      }
      if (query + 8 < p.queries) {
#pragma unroll
        for (int i = 0; i < D / 8; ++i) {
          if (8 * i < p.dim) out8[4 * i] = pack<T>(acc[4 * i + 2] * f8, acc[4 * i + 3] * f8);
        }
      }
      if (p.lse && t == 0) {
        float *lse = p.lse + static_cast<long long>(w.problem) * p.queries;
        if (query < p.queries) lse[query] = log_sum(max0 * scale, sum0);
        if (query + 8 < p.queries) lse[query + 8] = log_sum(max8 * scale, sum8);
      }
    }
  }
}

#define HOPPER(D, KEY_TILE, GROUPS)                                                     \
  extern "C" __global__ void __launch_bounds__(128 * (GROUPS + 1), 1)                   \
      attention_hopper_d##D(const __grid_constant__ HopperParams args) {                \
    hopper_body<ELEMENT, D, KEY_TILE, GROUPS>(args);                                    \
  }
HOPPER(40, 128, 3)
HOPPER(64, 128, 3)
HOPPER(80, 128, 2)
HOPPER(128, 128, 2)
HOPPER(160, 96, 2)
