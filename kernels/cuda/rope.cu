// Rotation of pairs of channels by the angle of their token. Compile with -DELEMENT=float, __half or
// __nv_bfloat16.
#include "vectors.cuh"

// Mirrors `Params` of src/cuda/rope.rs. All data is contiguous.
struct Params {
  const void *x;           // [tokens of all batches, heads, dim]
  void *out;
  const float *cos, *sin;  // [rows, pairs], used in turn by the tokens
  long long count, rows;   // vectors in all
  int heads, dim, pairs, halves;
  float sign;              // 1 to rotate, -1 to rotate back
};

// A thread makes a vector of the result. Where the other channels of its pairs are in another vector, that
// one is read too, from the caches: the neighbour who writes it reads it at the same time.
template <typename T, int N> __device__ __forceinline__ void rotate(const Params &p) {
  const int vectors = p.dim / N;
  const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; i < p.count; i += step) {
    const long long head = i / vectors;
    const int channel = static_cast<int>(i - head * vectors) * N;
    const long long angles = head / p.heads % p.rows * p.pairs;
    const T *x = static_cast<const T *>(p.x) + head * p.dim;
    float v[N];
    load_values(v, x + channel);
    if (channel < 2 * p.pairs) {
      if (p.halves) {
        const bool upper = channel >= p.pairs;
        const int pair = upper ? channel - p.pairs : channel;
        float other[N];
        load_values(other, x + (upper ? pair : pair + p.pairs));
#pragma unroll
        for (int j = 0; j < N; ++j) {
          const float sin = upper ? p.sign * p.sin[angles + pair + j] : -p.sign * p.sin[angles + pair + j];
          v[j] = fmaf(v[j], p.cos[angles + pair + j], other[j] * sin);
        }
      } else if constexpr (N == 1) {
        const float other = to_float(x[channel ^ 1]), sin = p.sign * p.sin[angles + channel / 2];
        v[0] = fmaf(v[0], p.cos[angles + channel / 2], channel % 2 ? other * sin : -other * sin);
      } else {
#pragma unroll
        for (int j = 0; j < N / 2; ++j) {
          const float cos = p.cos[angles + channel / 2 + j], sin = p.sign * p.sin[angles + channel / 2 + j];
          const float a = v[2 * j], b = v[2 * j + 1];
          v[2 * j] = fmaf(a, cos, -b * sin), v[2 * j + 1] = fmaf(b, cos, a * sin);
        }
      }
    }
    store_values(static_cast<T *>(p.out) + i * N, v);
  }
}

extern "C" __global__ void __launch_bounds__(256) rotate_wide(const __grid_constant__ Params p) {
  rotate<ELEMENT, WIDE<ELEMENT>>(p);
}
extern "C" __global__ void __launch_bounds__(256) rotate_one(const __grid_constant__ Params p) {
  rotate<ELEMENT, 1>(p);
}
