// Gradients of group and layer normalisation, and sums over rows. Compile with -DELEMENT=float, __half or
// __nv_bfloat16.
//
// Statistics are taken again from the input. Everything that is added up over points goes the same way:
// `sums_*` adds a piece of the points for every channel, a `finish` kernel adds the pieces in a fixed
// order, so that no result depends on which block ran first.
#include "slopes.cuh"

// Mirrors `Params` of src/cuda/norm_backward.rs. All data is contiguous; vectors need 16-byte bases.
struct Params {
  const void *x, *grad;         // [samples, points, channels]
  void *out;
  const void *weight, *bias;    // [channels]
  const void *added;            // [samples / added_samples, channels] or null: the norm is of x + added
  const void *scale, *shift;    // [samples, channels] or null
  float2 *partial;              // [samples, chunks, channels]
  float *plain, *moved;         // [samples, channels]: what the pieces add up to; `moved` may be null
  float4 *groups_of;            // [samples, groups]: mean, 1 / deviation, level, lean
  float2 *rows_of;              // a layer norm's rows: mean, 1 / deviation; or null
  long long points;
  int channels, groups, chunks, chunk_points;
  int tile, lines;              // vectors of a row handled at once, rows handled at once
  int added_samples, activation;
  int problems;                 // of a finish kernel that gives each a warp
  float eps;
};

// What is added up.
enum Sum { SUM_MOMENTS, SUM_GROUP, SUM_LAYER, SUM_PLAIN };

struct Stand {
  int column, line, sample, chunk;
  long long first, last;
};

__device__ __forceinline__ Stand stand_of(const Params &p) {
  Stand at;
  at.column = threadIdx.x % p.tile, at.line = threadIdx.x / p.tile;
  at.sample = blockIdx.x / p.chunks, at.chunk = blockIdx.x % p.chunks;
  at.first = static_cast<long long>(at.chunk) * p.chunk_points;
  at.last = min(at.first + p.chunk_points, p.points);
  return at;
}

template <typename T> __device__ __forceinline__ const T *added_row(const Params &p, int sample) {
  const T *added = static_cast<const T *>(p.added);
  return added ? added + static_cast<long long>(sample / p.added_samples) * p.channels : added;
}

// The value a group's moments are taken about, which keeps a large mean from swallowing the deviations.
template <typename T> __device__ __forceinline__ float pivot_of(const Params &p, int sample, int group) {
  const int channel = group * (p.channels / p.groups);
  const T *x = static_cast<const T *>(p.x) + sample * p.points * p.channels, *added = added_row<T>(p, sample);
  return to_float(x[channel]) + (added ? to_float(added[channel]) : 0.f);
}

// What a channel's values are mapped with: the input less `mean`, times `factor`, plus `offset`.
template <typename T, int N> struct Affine {
  float mean[N], factor[N], offset[N];

  __device__ __forceinline__ Affine(const Params &p, int sample, int channel) {
    load_values(factor, static_cast<const T *>(p.weight) + channel);
    load_values(offset, static_cast<const T *>(p.bias) + channel);
    const T *added = added_row<T>(p, sample);
    const T *scale = static_cast<const T *>(p.scale), *shift = static_cast<const T *>(p.shift);
    const long long row = static_cast<long long>(sample) * p.channels;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float4 group = p.groups_of[sample * p.groups + (channel + i) / (p.channels / p.groups)];
      mean[i] = added ? group.x - to_float(added[channel + i]) : group.x;
      factor[i] *= group.y;
      if (scale) {
        const float by = 1.f + to_float(scale[row + channel + i]);
        factor[i] *= by, offset[i] = fmaf(offset[i], by, to_float(shift[row + channel + i]));
      }
    }
  }

  // Leaves x - mean in `x` and the gradient before the activation in `g`.
  __device__ __forceinline__ void before(float (&x)[N], float (&g)[N], int activation) const {
    float y[N];
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] -= mean[i], y[i] = fmaf(x[i], factor[i], offset[i]);
    times_slope(g, y, activation);
  }
};

template <typename T, int N, Sum SUM> __device__ __forceinline__ void sums_body(const Params &p) {
  extern __shared__ float shared[];
  constexpr int AHEAD = SUM == SUM_MOMENTS || SUM == SUM_PLAIN ? 4 : 2;
  const int columns = p.channels / N, span = p.tile * N;
  float *first = shared, *second = shared + span * p.lines;
  const Stand at = stand_of(p);
  const long long base = at.sample * p.points * p.channels;
  const T *x = static_cast<const T *>(p.x) + base, *grad = static_cast<const T *>(p.grad) + base;
  for (int start = 0; start < columns; start += p.tile) {
    const int channel = (start + at.column) * N;
    float s[N] = {}, q[N] = {};
    if (at.line < p.lines && channel < p.channels) {
      const auto walk = [&](const auto &add) {
        constexpr bool both = SUM == SUM_GROUP || SUM == SUM_LAYER;
        const T *from = SUM == SUM_PLAIN ? grad : x;
        const long long stride = static_cast<long long>(p.lines) * p.channels;
        long long place = (at.first + at.line) * p.channels + channel, point = at.first + at.line;
        const long long end = at.last * p.channels;
        // Loads first: what is in flight decides the speed.
        for (; place + (AHEAD - 1) * stride < end; place += AHEAD * stride, point += AHEAD * p.lines) {
          Raw<T, N> raw[AHEAD], more[AHEAD];
#pragma unroll
          for (int j = 0; j < AHEAD; ++j) {
            raw[j].load(from + place + j * stride);
            if constexpr (both) more[j].load(grad + place + j * stride);
          }
#pragma unroll
          for (int j = 0; j < AHEAD; ++j) add(raw[j], more[j], point + j * p.lines);
        }
        for (; place < end; place += stride, point += p.lines) {
          Raw<T, N> raw, more;
          raw.load(from + place);
          if constexpr (both) more.load(grad + place);
          add(raw, more, point);
        }
      };
      if constexpr (SUM == SUM_MOMENTS) {
        float pivot[N];
        const T *added = added_row<T>(p, at.sample);
#pragma unroll
        for (int i = 0; i < N; ++i) {
          pivot[i] = pivot_of<T>(p, at.sample, (channel + i) / (p.channels / p.groups));
          if (added) pivot[i] -= to_float(added[channel + i]);
        }
        walk([&](const Raw<T, N> &raw, const Raw<T, N> &, long long) {
          float v[N];
          raw.values(v);
#pragma unroll
          for (int i = 0; i < N; ++i) {
            const float d = v[i] - pivot[i];
            s[i] += d, q[i] = fmaf(d, d, q[i]);
          }
        });
      } else if constexpr (SUM == SUM_GROUP) {
        const Affine<T, N> affine(p, at.sample, channel);
        walk([&](const Raw<T, N> &raw, const Raw<T, N> &more, long long) {
          float v[N], g[N];
          raw.values(v), more.values(g);
          affine.before(v, g, p.activation);
#pragma unroll
          for (int i = 0; i < N; ++i) s[i] += g[i], q[i] = fmaf(g[i], v[i], q[i]);
        });
      } else if constexpr (SUM == SUM_LAYER) {
        walk([&](const Raw<T, N> &raw, const Raw<T, N> &more, long long point) {
          float v[N], g[N];
          raw.values(v), more.values(g);
          const float2 row = p.rows_of[point];
#pragma unroll
          for (int i = 0; i < N; ++i) s[i] += g[i], q[i] = fmaf(g[i], (v[i] - row.x) * row.y, q[i]);
        });
      } else {
        walk([&](const Raw<T, N> &raw, const Raw<T, N> &, long long) {
          float v[N];
          raw.values(v);
#pragma unroll
          for (int i = 0; i < N; ++i) s[i] += v[i];
        });
      }
    }
    __syncthreads();
    if (at.line < p.lines) {
      // Channels of a vector lie apart, so that a warp writes one row of banks.
      const int slot = at.line * span + at.column;
#pragma unroll
      for (int i = 0; i < N; ++i) first[slot + i * p.tile] = s[i], second[slot + i * p.tile] = q[i];
    }
    __syncthreads();
    for (int c = threadIdx.x; c < span && start * N + c < p.channels; c += blockDim.x) {
      float2 total = make_float2(0.f, 0.f);
      for (int line = 0, slot = c % N * p.tile + c / N; line < p.lines; ++line, slot += span) {
        total.x += first[slot], total.y += second[slot];
      }
      p.partial[static_cast<long long>(blockIdx.x) * p.channels + start * N + c] = total;
    }
  }
}

#define SUMS(NAME, SUM)                                                                                       \
  extern "C" __global__ void __launch_bounds__(512) sums_##NAME##_wide(const __grid_constant__ Params p) {    \
    sums_body<ELEMENT, WIDE<ELEMENT>, SUM>(p);                                                                \
  }                                                                                                           \
  extern "C" __global__ void __launch_bounds__(512) sums_##NAME##_one(const __grid_constant__ Params p) {     \
    sums_body<ELEMENT, 1, SUM>(p);                                                                            \
  }
SUMS(moments, SUM_MOMENTS)
SUMS(group, SUM_GROUP)
SUMS(layer, SUM_LAYER)
SUMS(plain, SUM_PLAIN)

__device__ __forceinline__ float2 warp_sum(float2 x) {
#pragma unroll
  for (int o = 16; o > 0; o /= 2) x.x += __shfl_xor_sync(~0u, x.x, o), x.y += __shfl_xor_sync(~0u, x.y, o);
  return x;
}

// A channel's pieces, added up by a warp.
__device__ __forceinline__ float2 channel_sum(const Params &p, long long sample, int channel) {
  float2 total = make_float2(0.f, 0.f);
  for (int chunk = threadIdx.x % 32; chunk < p.chunks; chunk += 32) {
    const float2 part = p.partial[(sample * p.chunks + chunk) * p.channels + channel];
    total.x += part.x, total.y += part.y;
  }
  return warp_sum(total);
}

// Mean and inverse deviation of a group, a warp each.
extern "C" __global__ void __launch_bounds__(128) finish_moments(const __grid_constant__ Params p) {
  const int problem = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (problem >= p.problems) return;
  const int width = p.channels / p.groups, sample = problem / p.groups, group = problem % p.groups;
  float2 total = make_float2(0.f, 0.f);
  for (int i = lane; i < p.chunks * width; i += 32) {
    const long long chunk = static_cast<long long>(sample) * p.chunks + i / width;
    const float2 part = p.partial[chunk * p.channels + group * width + i % width];
    total.x += part.x, total.y += part.y;
  }
  total = warp_sum(total);
  if (lane != 0) return;
  const float count = static_cast<float>(p.points) * width, mean = total.x / count;
  float variance = total.y / count - mean * mean;
  if (variance < 0.f) variance = 0.f;  // not fmaxf: NaN stays
  const float pivot = pivot_of<ELEMENT>(p, sample, group);
  p.groups_of[problem] = make_float4(pivot + mean, 1.f / sqrtf(variance + p.eps), 0.f, 0.f);
}

// The sums of every channel of a group, a block a group, and what they take from the group's gradients:
// `level` and `lean` times the deviation from the mean.
extern "C" __global__ void __launch_bounds__(128) finish_group(const __grid_constant__ Params p) {
  using T = ELEMENT;
  __shared__ float2 shared[4];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, width = p.channels / p.groups;
  const long long sample = blockIdx.x / p.groups;
  const int group = blockIdx.x % p.groups;
  float4 &of = p.groups_of[blockIdx.x];
  const float inverse = of.y;
  float2 taken = make_float2(0.f, 0.f);
  for (int c = warp; c < width; c += 4) {
    const int channel = group * width + c;
    const float2 total = channel_sum(p, sample, channel);
    float factor = inverse * to_float(static_cast<const T *>(p.weight)[channel]);
    if (p.scale) factor *= 1.f + to_float(static_cast<const T *>(p.scale)[sample * p.channels + channel]);
    taken.x = fmaf(factor, total.x, taken.x), taken.y = fmaf(factor, total.y, taken.y);
    if (lane == 0) {
      p.plain[sample * p.channels + channel] = total.x;
      p.moved[sample * p.channels + channel] = total.y * inverse;
    }
  }
  if (lane == 0) shared[warp] = taken;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int i = 1; i < 4; ++i) taken.x += shared[i].x, taken.y += shared[i].y;
  const float count = static_cast<float>(p.points) * width;
  of.z = taken.x / count, of.w = taken.y / count * inverse * inverse;
}

// The sums of every channel, a warp each.
extern "C" __global__ void __launch_bounds__(128) finish_plain(const __grid_constant__ Params p) {
  const int problem = blockIdx.x * 4 + threadIdx.x / 32;
  if (problem >= p.problems) return;
  const float2 total = channel_sum(p, problem / p.channels, problem % p.channels);
  if (threadIdx.x % 32 == 0) {
    p.plain[problem] = total.x;
    if (p.moved) p.moved[problem] = total.y;
  }
}

template <typename T, int N> __device__ __forceinline__ void group_input_body(const Params &p) {
  constexpr int AHEAD = 2;
  const Stand at = stand_of(p);
  if (at.line >= p.lines) return;
  const long long base = at.sample * p.points * p.channels;
  const T *x = static_cast<const T *>(p.x) + base, *grad = static_cast<const T *>(p.grad) + base;
  T *out = static_cast<T *>(p.out) + base;
  for (int column = at.column; column < p.channels / N; column += p.tile) {
    const int channel = column * N;
    const Affine<T, N> affine(p, at.sample, channel);
    float level[N], lean[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float4 group = p.groups_of[at.sample * p.groups + (channel + i) / (p.channels / p.groups)];
      level[i] = group.z, lean[i] = group.w;
    }
    const auto map = [&](const Raw<T, N> &raw, const Raw<T, N> &more, long long to) {
      float v[N], g[N];
      raw.values(v), more.values(g);
      affine.before(v, g, p.activation);
#pragma unroll
      for (int i = 0; i < N; ++i) v[i] = fmaf(g[i], affine.factor[i], -fmaf(v[i], lean[i], level[i]));
      store_values(out + to, v);
    };
    // Backwards: it begins with what the second-level cache still holds.
    const long long stride = static_cast<long long>(p.lines) * p.channels;
    const long long begin = at.first * p.channels + channel;
    long long place = (at.last - 1 - at.line) * p.channels + channel;
    for (; place - (AHEAD - 1) * stride >= begin; place -= AHEAD * stride) {
      Raw<T, N> raw[AHEAD], more[AHEAD];
#pragma unroll
      for (int j = 0; j < AHEAD; ++j) raw[j].load(x + place - j * stride), more[j].load(grad + place - j * stride);
#pragma unroll
      for (int j = 0; j < AHEAD; ++j) map(raw[j], more[j], place - j * stride);
    }
    for (; place >= begin; place -= stride) {
      Raw<T, N> raw, more;
      raw.load(x + place), more.load(grad + place);
      map(raw, more, place);
    }
  }
}

extern "C" __global__ void __launch_bounds__(512) group_input_wide(const __grid_constant__ Params p) {
  group_input_body<ELEMENT, WIDE<ELEMENT>>(p);
}
extern "C" __global__ void __launch_bounds__(512) group_input_one(const __grid_constant__ Params p) {
  group_input_body<ELEMENT, 1>(p);
}

// Eight, sixteen or 32 lanes (`tile`) hold a row of a layer norm in registers, V vectors each.
template <typename T, int V> __device__ __forceinline__ void layer_rows(const Params &p) {
  constexpr int N = WIDE<T>;
  const int lane = threadIdx.x % p.tile, columns = p.channels / N;
  const long long row = (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x) / p.tile;
  const bool there = row < p.points;
  Raw<T, N> x[V], grad[V];
#pragma unroll
  for (int j = 0; j < V; ++j) {
    const int column = j * p.tile + lane;
    if (there && column < columns) {
      x[j].load(static_cast<const T *>(p.x) + row * p.channels + column * N);
      grad[j].load(static_cast<const T *>(p.grad) + row * p.channels + column * N);
    }
  }
  const auto each = [&](const auto &f) {
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const int column = j * p.tile + lane;
      if (there && column < columns) {
        float v[N], g[N], weight[N];
        x[j].values(v), grad[j].values(g);
        load_values(weight, static_cast<const T *>(p.weight) + column * N);
#pragma unroll
        for (int i = 0; i < N; ++i) g[i] *= weight[i];
        f(v, g, column);
      }
    }
  };
  float mean = 0.f, square = 0.f;
  float2 taken = make_float2(0.f, 0.f);
#pragma unroll
  for (int j = 0; j < V; ++j) {
    if (there && j * p.tile + lane < columns) {
      float v[N];
      x[j].values(v);
#pragma unroll
      for (int i = 0; i < N; ++i) mean += v[i];
    }
  }
  for (int o = p.tile / 2; o > 0; o /= 2) mean += __shfl_xor_sync(~0u, mean, o);
  mean /= p.channels;
  each([&](const float(&v)[N], const float(&g)[N], int) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float d = v[i] - mean;
      square = fmaf(d, d, square), taken.x += g[i], taken.y = fmaf(g[i], d, taken.y);
    }
  });
  for (int o = p.tile / 2; o > 0; o /= 2) {
    square += __shfl_xor_sync(~0u, square, o);
    taken.x += __shfl_xor_sync(~0u, taken.x, o), taken.y += __shfl_xor_sync(~0u, taken.y, o);
  }
  const float inverse = 1.f / sqrtf(square / p.channels + p.eps);
  const float level = taken.x / p.channels, lean = taken.y / p.channels * inverse * inverse;
  if (p.rows_of && there && lane == 0) p.rows_of[row] = make_float2(mean, inverse);
  each([&](const float(&v)[N], const float(&g)[N], int column) {
    float y[N];
#pragma unroll
    for (int i = 0; i < N; ++i) y[i] = inverse * (g[i] - fmaf(v[i] - mean, lean, level));
    store_values(static_cast<T *>(p.out) + row * p.channels + column * N, y);
  });
}

#define LAYER(V)                                                                                          \
  extern "C" __global__ void __launch_bounds__(256) layer_input_##V(const __grid_constant__ Params p) {   \
    layer_rows<ELEMENT, V>(p);                                                                            \
  }
LAYER(1) LAYER(2) LAYER(3) LAYER(4) LAYER(5) LAYER(6) LAYER(8) LAYER(10)

// Over a block of 256 threads.
__device__ __forceinline__ float3 block_sum(float3 x, float3 *shared) {
#pragma unroll
  for (int o = 16; o > 0; o /= 2) {
    x.x += __shfl_xor_sync(~0u, x.x, o);
    x.y += __shfl_xor_sync(~0u, x.y, o), x.z += __shfl_xor_sync(~0u, x.z, o);
  }
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  x = make_float3(0.f, 0.f, 0.f);
  for (int i = 0; i < 8; ++i) x.x += shared[i].x, x.y += shared[i].y, x.z += shared[i].z;
  return x;
}

// Any width and alignment: a block a row, read three times, from the caches but for the first.
extern "C" __global__ void __launch_bounds__(256) layer_input_any(const __grid_constant__ Params p) {
  using T = ELEMENT;
  __shared__ float3 shared[8];
  const T *weight = static_cast<const T *>(p.weight);
  for (long long row = blockIdx.x; row < p.points; row += gridDim.x) {
    const T *x = static_cast<const T *>(p.x) + row * p.channels;
    const T *grad = static_cast<const T *>(p.grad) + row * p.channels;
    float3 sums = make_float3(0.f, 0.f, 0.f);
    for (int c = threadIdx.x; c < p.channels; c += blockDim.x) sums.x += to_float(x[c]);
    const float mean = block_sum(sums, shared).x / p.channels;
    sums = make_float3(0.f, 0.f, 0.f);
    for (int c = threadIdx.x; c < p.channels; c += blockDim.x) {
      const float d = to_float(x[c]) - mean, g = to_float(grad[c]) * to_float(weight[c]);
      sums.x = fmaf(d, d, sums.x), sums.y += g, sums.z = fmaf(g, d, sums.z);
    }
    sums = block_sum(sums, shared);
    const float inverse = 1.f / sqrtf(sums.x / p.channels + p.eps);
    const float level = sums.y / p.channels, lean = sums.z / p.channels * inverse * inverse;
    if (p.rows_of && threadIdx.x == 0) p.rows_of[row] = make_float2(mean, inverse);
    T *out = static_cast<T *>(p.out) + row * p.channels;
    for (int c = threadIdx.x; c < p.channels; c += blockDim.x) {
      const float g = to_float(grad[c]) * to_float(weight[c]);
      out[c] = from_float<T>(inverse * (g - fmaf(to_float(x[c]) - mean, lean, level)));
    }
  }
}
