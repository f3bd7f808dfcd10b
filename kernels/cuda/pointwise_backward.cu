// Gradients of functions applied value by value, of the softmax and of doubled pictures. Compile with
// -DELEMENT=float, __half or __nv_bfloat16.
//
// Each exists for vectors of 16 bytes (`_wide`) and for single values (`_one`).
#include "slopes.cuh"

// Mirrors `Params` of src/cuda/pointwise_backward.rs. All data is contiguous.
struct Params {
  const void *x, *grad;  // what the forward pass read (the softmax: its result), the result's gradient
  void *out;
  long long count;       // vectors a thread goes through
  int columns, width;    // vectors of a row (or pixel); pixels of a line of the small picture
  int activation;
};

// out = grad · activation'(x).
template <typename T, int N> __device__ __forceinline__ void activate_body(const Params &p, long long i) {
  float x[N], g[N];
  load_values(x, static_cast<const T *>(p.x) + i * N);
  load_values(g, static_cast<const T *>(p.grad) + i * N);
  times_slope(g, x, p.activation);
  store_values(static_cast<T *>(p.out) + i * N, g);
}

// A row of values, then its gates; the gradient has a row of values.
template <typename T, int N> __device__ __forceinline__ void geglu_body(const Params &p, long long i) {
  const long long row = i / p.columns, at = (row * p.columns + i) * N, gates = static_cast<long long>(p.columns) * N;
  float value[N], gate[N], g[N];
  load_values(value, static_cast<const T *>(p.x) + at);
  load_values(gate, static_cast<const T *>(p.x) + at + gates);
  load_values(g, static_cast<const T *>(p.grad) + i * N);
#pragma unroll
  for (int j = 0; j < N; ++j) {
    value[j] *= g[j] * gelu_slope(gate[j]);
    g[j] *= gelu_erf(gate[j]);
  }
  store_values(static_cast<T *>(p.out) + at, g);
  store_values(static_cast<T *>(p.out) + at + gates, value);
}

// Each pixel of the small picture gets the sum of its four copies' gradients.
template <typename T, int N> __device__ __forceinline__ void halve_body(const Params &p, long long i) {
  const long long pixel = i / p.columns, line = pixel / p.width, x = pixel - line * p.width;
  const long long wide = 2LL * p.width, from = (2 * line * wide + 2 * x) * p.columns + i - pixel * p.columns;
  const T *grad = static_cast<const T *>(p.grad);
  float sum[N] = {};
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    float g[N];
    load_values(g, grad + (from + (k / 2 * wide + k % 2) * p.columns) * N);
#pragma unroll
    for (int j = 0; j < N; ++j) sum[j] += g[j];
  }
  store_values(static_cast<T *>(p.out) + i * N, sum);
}

#define POINT(NAME)                                                                                           \
  template <int N> __device__ __forceinline__ void NAME##_all(const Params &p) {                              \
    const long long step = static_cast<long long>(gridDim.x) * blockDim.x;                                    \
    for (long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; i < p.count; i += step) \
      NAME##_body<ELEMENT, N>(p, i);                                                                          \
  }                                                                                                           \
  extern "C" __global__ void __launch_bounds__(256) NAME##_wide(const __grid_constant__ Params p) {           \
    NAME##_all<WIDE<ELEMENT>>(p);                                                                             \
  }                                                                                                           \
  extern "C" __global__ void __launch_bounds__(256) NAME##_one(const __grid_constant__ Params p) {            \
    NAME##_all<1>(p);                                                                                         \
  }
POINT(activate)
POINT(geglu)
POINT(halve)

// out = y (grad - Σ y grad) a row, a block a row of `columns` values; `count` rows.
extern "C" __global__ void __launch_bounds__(256) softmax_rows(const __grid_constant__ Params p) {
  using T = ELEMENT;
  __shared__ float shared[8];
  for (long long row = blockIdx.x; row < p.count; row += gridDim.x) {
    const T *y = static_cast<const T *>(p.x) + row * p.columns, *g = static_cast<const T *>(p.grad) + row * p.columns;
    T *out = static_cast<T *>(p.out) + row * p.columns;
    float sum = 0.f;
    for (int c = threadIdx.x; c < p.columns; c += blockDim.x) sum = fmaf(to_float(y[c]), to_float(g[c]), sum);
#pragma unroll
    for (int o = 16; o > 0; o /= 2) sum += __shfl_xor_sync(~0u, sum, o);
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = 0.f;
    for (int i = 0; i < 8; ++i) sum += shared[i];
    for (int c = threadIdx.x; c < p.columns; c += blockDim.x) {
      out[c] = from_float<T>(to_float(y[c]) * (to_float(g[c]) - sum));
    }
  }
}

// The same for rows of at most 128 vectors, which a warp holds in registers.
extern "C" __global__ void __launch_bounds__(256) softmax_warps(const __grid_constant__ Params p) {
  using T = ELEMENT;
  constexpr int N = WIDE<T>, V = 4;
  const int lane = threadIdx.x % 32, columns = p.columns / N;
  const long long step = static_cast<long long>(gridDim.x) * 8;
  for (long long row = static_cast<long long>(blockIdx.x) * 8 + threadIdx.x / 32; row < p.count; row += step) {
    const T *y = static_cast<const T *>(p.x) + row * p.columns, *g = static_cast<const T *>(p.grad) + row * p.columns;
    Raw<T, N> kept[V], more[V];
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const int column = j * 32 + lane;
      if (column < columns) kept[j].load(y + column * N), more[j].load(g + column * N);
    }
    float sum = 0.f;
#pragma unroll
    for (int j = 0; j < V; ++j) {
      if (j * 32 + lane >= columns) continue;
      float a[N], b[N];
      kept[j].values(a), more[j].values(b);
#pragma unroll
      for (int i = 0; i < N; ++i) sum = fmaf(a[i], b[i], sum);
    }
#pragma unroll
    for (int o = 16; o > 0; o /= 2) sum += __shfl_xor_sync(~0u, sum, o);
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const int column = j * 32 + lane;
      if (column >= columns) continue;
      float a[N], b[N];
      kept[j].values(a), more[j].values(b);
#pragma unroll
      for (int i = 0; i < N; ++i) a[i] *= b[i] - sum;
      store_values(static_cast<T *>(p.out) + row * p.columns + column * N, a);
    }
  }
}
