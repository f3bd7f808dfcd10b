// Gradients of attention over very many very short sequences: a video's time axes.
//
// Bound by memory: seven tensors pass once, in place, through their strides. A warp owns a sequence and
// head whole, up to 16 N queries and keys, in registers: rows are loaded in the layout of fragments.cuh, which
// serves as rows of one product and, transposed in registers, as columns of the next. Whole rows of
// weights give delta without the forward result. Compile with -DELEMENT=__half or __nv_bfloat16.
#include "backward.cuh"
#include "fragments.cuh"

template <int D, int N, typename T>
__device__ __forceinline__ void load_all(Row<D> (&rows)[2 * N], const void *base, const long long *stride,
                                         const Place &at, int limit, int g, int t) {
  const T *from = static_cast<const T *>(base) + offset_of(stride, at, at.head);
#pragma unroll
  for (int j = 0; j < 2 * N; ++j) rows[j] = load_row<D>(from + (8 * j + g) * stride[3], t, 8 * j + g < limit);
}

// One block of 8 M columns of the product of 16 x 16 N fragments and 16 N rows, M = 4, 2 or 1.
template <int D, int N, int M, typename T>
__device__ __forceinline__ void product_piece(const Row<D> (&rows)[2 * N], const uint32_t (&a)[N][4], int reg,
                                              float factor, char *out0, char *out8, int by) {
  float acc[M][4] = {};
#pragma unroll
  for (int k = 0; k < N; ++k) {
#pragma unroll
    for (int m = 0; m < M; ++m) {
      mma16<T>(acc[m], a[k][0], a[k][1], a[k][2], a[k][3], transpose8(rows[2 * k].r[reg + m]),
               transpose8(rows[2 * k + 1].r[reg + m]));
    }
  }
  uint32_t x[M];
  if (out0) {
#pragma unroll
    for (int m = 0; m < M; ++m) x[m] = pack<T>(acc[m][0] * factor, acc[m][1] * factor);
    store_piece<M>(out0 + by, x);
  }
  if (out8) {
#pragma unroll
    for (int m = 0; m < M; ++m) x[m] = pack<T>(acc[m][2] * factor, acc[m][3] * factor);
    store_piece<M>(out8 + by, x);
  }
}

// Writes rows g and g + 8 of `a · rows` to `out` from row `first` on, those below `limit`.
template <int D, int N, typename T>
__device__ __forceinline__ void put_product(const Row<D> (&rows)[2 * N], const uint32_t (&a)[N][4], float factor,
                                            T *out, long long stride, int first, int limit, int g, int t) {
  using C = Cut<D>;
  char *out0 = first + g < limit ? reinterpret_cast<char *>(out + (first + g) * stride) : nullptr;
  char *out8 = first + g + 8 < limit ? reinterpret_cast<char *>(out + (first + g + 8) * stride) : nullptr;
#pragma unroll
  for (int i = 0; i < C::WIDE; ++i) product_piece<D, N, 4, T>(rows, a, 4 * i, factor, out0, out8, 64 * i + 16 * t);
  if constexpr (C::MID) product_piece<D, N, 2, T>(rows, a, 4 * C::WIDE, factor, out0, out8, 64 * C::WIDE + 8 * t);
  if constexpr (C::NARROW) {
    product_piece<D, N, 1, T>(rows, a, C::REGS - 1, factor, out0, out8, 64 * C::WIDE + 32 * C::MID + 4 * t);
  }
}

// The fragments of group `of` of columns as rows.
template <int N>
__device__ __forceinline__ void turn(uint32_t (&to)[N][4], const uint32_t (&from)[N][N][4], int of) {
#pragma unroll
  for (int m = 0; m < N; ++m) {
    const uint32_t(&x)[4] = from[m][of];
    to[m][0] = transpose8(x[0]), to[m][1] = transpose8(x[2]);
    to[m][2] = transpose8(x[1]), to[m][3] = transpose8(x[3]);
  }
}

template <typename T, int D, int N> __device__ __forceinline__ void short_body(const BackwardParams &b) {
  const AttentionParams &p = b.call;
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const unsigned problem = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  if (problem >= static_cast<unsigned>(p.batch * p.inner) * p.heads) return;
  const Place at = place_of(p, problem);
  const int limit = key_limit(p, at);
  Row<D> q[2 * N], k[2 * N], v[2 * N], grad[2 * N];
  load_all<D, N, T>(q, p.q, p.q_stride, at, p.queries, g, t);
  load_all<D, N, T>(k, p.k, p.k_stride, at, limit, g, t);
  load_all<D, N, T>(grad, b.grad, b.grad_stride, at, p.queries, g, t);
  load_all<D, N, T>(v, p.v, p.v_stride, at, limit, g, t);
  const float *lse = p.lse + static_cast<long long>(problem) * p.queries;
  uint32_t weights[N][N][4], slopes[N][N][4];
#pragma unroll
  for (int m = 0; m < N; ++m) {
    const int query = 16 * m + g;
    const float base[2] = {row_of(query < p.queries ? lse[query] : -INFINITY, 0.f).x,
                           row_of(query + 8 < p.queries ? lse[query + 8] : -INFINITY, 0.f).x};
    float x[2 * N][4] = {}, y[2 * N][4] = {}, delta[2] = {};
#pragma unroll
    for (int j = 0; j < 2 * N; ++j) {
      dot_rows<D, T>(x[j], q[2 * m], q[2 * m + 1], k[j]);
      dot_rows<D, T>(y[j], grad[2 * m], grad[2 * m + 1], v[j]);
    }
#pragma unroll
    for (int j = 0; j < 2 * N; ++j) {
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const int key = 8 * j + 2 * t + r % 2;
        bool seen = key < limit;
        if (p.mask == MASK_CAUSAL) seen = seen && key <= query + 8 * (r / 2) + p.keys - p.queries;
        x[j][r] = seen ? exp2_fast(fmaf(x[j][r], p.scale_log2, -base[r / 2])) : 0.f;
        delta[r / 2] = fmaf(x[j][r], y[j][r], delta[r / 2]);
      }
    }
    delta[0] = row_sum(delta[0]), delta[1] = row_sum(delta[1]);
#pragma unroll
    for (int j = 0; j < 2 * N; ++j) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int r = 2 * half, to = 2 * (j % 2) + half;
        weights[m][j / 2][to] = pack<T>(x[j][r], x[j][r + 1]);
        slopes[m][j / 2][to] = pack<T>(x[j][r] * (y[j][r] - delta[half]), x[j][r + 1] * (y[j][r + 1] - delta[half]));
      }
    }
    T *dq = static_cast<T *>(b.dq) + offset_of(b.dq_stride, at, at.head);
    put_product<D, N, T>(k, slopes[m], b.scale, dq, b.dq_stride[3], 16 * m, p.queries, g, t);
  }
  // Keys past the limit have weights of zero, so theirs are written as zeros.
  T *dk = static_cast<T *>(b.dk) + offset_of(b.dk_stride, at, at.head);
  T *dv = static_cast<T *>(b.dv) + offset_of(b.dk_stride, at, at.head);
#pragma unroll
  for (int of = 0; of < N; ++of) {
    uint32_t a[N][4];
    turn<N>(a, slopes, of);
    put_product<D, N, T>(q, a, b.scale, dk, b.dk_stride[3], 16 * of, p.keys, g, t);
    turn<N>(a, weights, of);
    put_product<D, N, T>(grad, a, 1.f, dv, b.dk_stride[3], 16 * of, p.keys, g, t);
  }
}

#define SHORT(D, N)                                                                                \
  extern "C" __global__ void __launch_bounds__(128)                                                \
      attention_backward_short_d##D##_n##N(const __grid_constant__ BackwardParams p) {             \
    short_body<ELEMENT, D, N>(p);                                                                  \
  }
SHORT(32, 1)
SHORT(40, 1)
SHORT(64, 1)
SHORT(80, 1)
SHORT(96, 1)
SHORT(128, 1)
SHORT(160, 1)
SHORT(32, 2)
SHORT(40, 2)
SHORT(64, 2)
SHORT(80, 2)
