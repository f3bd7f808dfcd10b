// Functions applied value by value, and copies of pixels. Compile with -DELEMENT=float, __half or __nv_bfloat16.
//
// Each exists for vectors of 16 bytes (`_wide`) and for single values (`_one`).
#include "vectors.cuh"

// Mirrors `PointParams` of src/cuda/pointwise.rs. All data is contiguous.
struct PointParams {
  const void *x;
  void *out;
  const void *bias, *residual;  // [columns] and like `out`, or null
  long long count;              // vectors of the result
  int columns;                  // vectors of a row of the result
  int height, width;            // of the small picture
  int activation;
};

template <typename T, int N> struct Walk {
  long long at, step;
  __device__ Walk() {
    at = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    step = static_cast<long long>(gridDim.x) * blockDim.x;
  }
};

template <typename T, int N> __device__ __forceinline__ void activate_body(const PointParams &p) {
  const Walk<T, N> walk;
#pragma unroll 4
  for (long long i = walk.at; i < p.count; i += walk.step) {
    float x[N];
    load_values(x, static_cast<const T *>(p.x) + i * N);
    activate(x, p.activation);
    store_values(static_cast<T *>(p.out) + i * N, x);
  }
}

// out = value · gelu(gate) with rows [value, gate].
template <typename T, int N> __device__ __forceinline__ void geglu_body(const PointParams &p) {
  const Walk<T, N> walk;
#pragma unroll 2
  for (long long i = walk.at; i < p.count; i += walk.step) {
    const long long row = i / p.columns;
    const T *from = static_cast<const T *>(p.x) + (row * p.columns + i) * N;
    float value[N], gate[N];
    load_values(value, from);
    load_values(gate, from + static_cast<long long>(p.columns) * N);
#pragma unroll
    for (int j = 0; j < N; ++j) value[j] *= gelu_erf(gate[j]);
    store_values(static_cast<T *>(p.out) + i * N, value);
  }
}

// out = activation(out + bias) + residual.
template <typename T, int N> __device__ __forceinline__ void finish_body(const PointParams &p) {
  const Walk<T, N> walk;
  T *out = static_cast<T *>(p.out);
#pragma unroll 2
  for (long long i = walk.at; i < p.count; i += walk.step) {
    float x[N], more[N];
    // Not through the read-only path: this memory is written here.
    if constexpr (N == WIDE<T>) {
      const uint4 raw = *reinterpret_cast<const uint4 *>(out + i * N);
      const uint32_t part[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if constexpr (sizeof(T) == 4) {
          x[j] = __uint_as_float(part[j]);
        } else {
          const float2 pair = unpack<T>(part[j]);
          x[2 * j] = pair.x, x[2 * j + 1] = pair.y;
        }
      }
    } else {
#pragma unroll
      for (int j = 0; j < N; ++j) x[j] = to_float(out[i * N + j]);
    }
    if (p.bias) {
      load_values(more, static_cast<const T *>(p.bias) + i % p.columns * N);
#pragma unroll
      for (int j = 0; j < N; ++j) x[j] += more[j];
    }
    activate(x, p.activation);
    if (p.residual) {
      load_values(more, static_cast<const T *>(p.residual) + i * N);
#pragma unroll
      for (int j = 0; j < N; ++j) x[j] += more[j];
    }
    store_values(out + i * N, x);
  }
}

// Rows of `columns` vectors are pixels; each goes to four places.
template <typename T, int N> __device__ __forceinline__ void upsample_body(const PointParams &p) {
  const Walk<T, N> walk;
  const long long wide = 2LL * p.width;
  for (long long i = walk.at; i < p.count; i += walk.step) {
    const long long pixel = i / p.columns;
    const int column = i - pixel * p.columns;
    const long long line = pixel / p.width, x = pixel - line * p.width;  // lines of all pictures
    const long long to = ((2 * line) * wide + 2 * x) * p.columns + column;
    float v[N];
    load_values(v, static_cast<const T *>(p.x) + i * N);
    T *out = static_cast<T *>(p.out);
    store_values(out + to * N, v);
    store_values(out + (to + p.columns) * N, v);
    store_values(out + (to + wide * p.columns) * N, v);
    store_values(out + (to + (wide + 1) * p.columns) * N, v);
  }
}

#define POINT(NAME)                                                                                         \
  extern "C" __global__ void __launch_bounds__(256) NAME##_wide(const __grid_constant__ PointParams p) {    \
    NAME##_body<ELEMENT, WIDE<ELEMENT>>(p);                                                                 \
  }                                                                                                         \
  extern "C" __global__ void __launch_bounds__(256) NAME##_one(const __grid_constant__ PointParams p) {     \
    NAME##_body<ELEMENT, 1>(p);                                                                             \
  }
POINT(activate)
POINT(geglu)
POINT(finish)
POINT(upsample)

// Mirrors `SoftmaxParams` of src/cuda/pointwise.rs.
struct SoftmaxParams {
  const void *x;
  void *out;
  long long rows;
  int columns;
};

// The softmax of each row, a block a row. A row of -inf gives zeros, as attention defines it.
extern "C" __global__ void __launch_bounds__(256) softmax_rows(const __grid_constant__ SoftmaxParams p) {
  using T = ELEMENT;
  __shared__ float shared[16];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (long long row = blockIdx.x; row < p.rows; row += gridDim.x) {
    const T *x = static_cast<const T *>(p.x) + row * p.columns;
    T *out = static_cast<T *>(p.out) + row * p.columns;
    float top = -INFINITY, sum = 0.f;
    for (int c = threadIdx.x; c < p.columns; c += blockDim.x) top = max_nan(top, to_float(x[c]));
#pragma unroll
    for (int o = 16; o > 0; o /= 2) top = max_nan(top, __shfl_xor_sync(~0u, top, o));
    __syncthreads();
    if (lane == 0) shared[warp] = top;
    __syncthreads();
    for (int i = 0; i < 8; ++i) top = max_nan(top, shared[i]);
    const float base = top == -INFINITY ? 0.f : top;
    for (int c = threadIdx.x; c < p.columns; c += blockDim.x) sum += exp2_fast((to_float(x[c]) - base) * LOG2_E);
#pragma unroll
    for (int o = 16; o > 0; o /= 2) sum += __shfl_xor_sync(~0u, sum, o);
    if (lane == 0) shared[8 + warp] = sum;
    __syncthreads();
    sum = 0.f;
    for (int i = 0; i < 8; ++i) sum += shared[8 + i];
    const float factor = sum == 0.f ? 0.f : 1.f / sum;
    for (int c = threadIdx.x; c < p.columns; c += blockDim.x) {
      out[c] = from_float<T>(exp2_fast((to_float(x[c]) - base) * LOG2_E) * factor);
    }
  }
}
