// Group and layer normalisation of channels-last data. Compile with -DELEMENT=float, __half or __nv_bfloat16.
//
// GroupNorm reads its input twice: `group_stats` sums a piece of the points of one sample for every
// group, `group_apply` adds the pieces up and maps. One wave of blocks does each, and the second
// walks its piece backwards, so that it begins with what the second-level cache still holds.
#include "sources.cuh"

// Mirrors `GroupParams` of src/cuda/norm.rs. All data is contiguous; vectors need 16-byte bases.
struct GroupParams {
  const void *x;               // [samples, points, channels], or the first `split` of the channels
  const void *rest;            // [samples, points, channels - split] or null: the other channels
  void *out;
  const void *weight, *bias;   // [channels]
  const void *added;           // [samples / added_samples, channels] or null: the norm is of x + added
  const void *scale, *shift;   // [samples, channels] or null
  float2 *partial;             // [samples, groups, chunks]: sums and sums of squares about the group's first value
  long long points;
  int channels, split, groups, chunks, chunk_points;  // split: a multiple of a vector; channels without `rest`
  int tile, lines;             // vectors of a row handled at once, rows handled at once
  int added_samples, activation;
  float eps;
};

// Rows whose loads a thread starts together.
constexpr int AHEAD = 3;

// Where a thread stands: its vector of a row, its first row, and its block's sample and points.
struct Stand {
  int column, line, sample, chunk;
  long long first, last;
};

__device__ __forceinline__ Stand stand_of(const GroupParams &p) {
  Stand at;
  at.column = threadIdx.x % p.tile, at.line = threadIdx.x / p.tile;
  at.sample = blockIdx.x / p.chunks, at.chunk = blockIdx.x % p.chunks;
  at.first = static_cast<long long>(at.chunk) * p.chunk_points;
  at.last = min(at.first + p.chunk_points, p.points);
  return at;
}

// The value every sum of a group is taken about, which keeps a large mean from swallowing the deviations.
template <typename T>
__device__ __forceinline__ float pivot_of(const GroupParams &p, int sample, const T *added, int channel) {
  const float first = to_float(*source_of<T>(p, sample, channel).first);
  return added ? first + to_float(added[channel]) : first;
}

template <typename T>
__device__ __forceinline__ const T *added_row(const GroupParams &p, int sample) {
  const T *added = static_cast<const T *>(p.added);
  return added ? added + static_cast<long long>(sample / p.added_samples) * p.channels : added;
}

template <typename T, int N> __device__ __forceinline__ void group_stats_body(const GroupParams &p) {
  extern __shared__ float shared[];
  const int width = p.channels / p.groups, columns = p.channels / N, span = p.tile * N;
  float *sums = shared, *squares = shared + span * p.lines;
  float2 *totals = reinterpret_cast<float2 *>(squares + span * p.lines);
  const Stand at = stand_of(p);
  const T *added = added_row<T>(p, at.sample);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  for (int start = 0; start < columns; start += p.tile) {
    const int channel = (start + at.column) * N;
    float s[N] = {}, q[N] = {};
    if (at.line < p.lines && channel < p.channels) {
      float pivot[N];
#pragma unroll
      for (int i = 0; i < N; ++i) {
        pivot[i] = pivot_of(p, at.sample, added, (channel + i) / width * width);
        if (added) pivot[i] -= to_float(added[channel + i]);
      }
      const Source<T> from = source_of<T>(p, at.sample, channel);
      const auto add = [&](const Raw<T, N> &raw) {
        float v[N];
        raw.values(v);
#pragma unroll
        for (int i = 0; i < N; ++i) {
          const float d = v[i] - pivot[i];
          s[i] += d, q[i] = fmaf(d, d, q[i]);
        }
      };
      const long long stride = p.lines * from.width;
      const T *row = from.first + (at.first + at.line) * from.width, *end = from.first + at.last * from.width;
      // Loads first: what is in flight decides the speed.
      for (; row + (AHEAD - 1) * stride < end; row += AHEAD * stride) {
        Raw<T, N> raw[AHEAD];
#pragma unroll
        for (int j = 0; j < AHEAD; ++j) raw[j].load(row + j * stride);
#pragma unroll
        for (int j = 0; j < AHEAD; ++j) add(raw[j]);
      }
      for (; row < end; row += stride) {
        Raw<T, N> raw;
        raw.load(row);
        add(raw);
      }
    }
    __syncthreads();
    if (at.line < p.lines) {
      // Channels of a vector lie apart, so that a warp writes one row of banks.
      const int slot = at.line * span + at.column;
#pragma unroll
      for (int i = 0; i < N; ++i) sums[slot + i * p.tile] = s[i], squares[slot + i * p.tile] = q[i];
    }
    __syncthreads();
    // A warp adds one group at a time, in a fixed order; groups may reach over tiles.
    for (int group = warp; group < p.groups; group += warps) {
      const int low = max(group * width, start * N) - start * N;
      const int count = min((group + 1) * width - start * N, span) - low;
      float2 total = make_float2(0.f, 0.f);
      if (count > 0) {
        for (int i = lane; i < count * p.lines; i += 32) {
          const int line = i / count, c = low + i - line * count;
          const int slot = line * span + c % N * p.tile + c / N;
          total.x += sums[slot], total.y += squares[slot];
        }
      }
#pragma unroll
      for (int o = 16; o > 0; o /= 2) {
        total.x += __shfl_xor_sync(~0u, total.x, o);
        total.y += __shfl_xor_sync(~0u, total.y, o);
      }
      if (lane == 0) {
        if (start > 0) total.x += totals[group].x, total.y += totals[group].y;
        totals[group] = total;
        if (start + p.tile >= columns) {
          p.partial[(static_cast<long long>(at.sample) * p.groups + group) * p.chunks + at.chunk] = total;
        }
      }
    }
  }
}

template <typename T, int N> __device__ __forceinline__ void group_apply_body(const GroupParams &p) {
  extern __shared__ float shared[];
  const int width = p.channels / p.groups, columns = p.channels / N;
  float2 *stats = reinterpret_cast<float2 *>(shared);  // mean and 1 / deviation
  const Stand at = stand_of(p);
  T *out = static_cast<T *>(p.out) + at.sample * p.points * p.channels;
  const T *added = added_row<T>(p, at.sample);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  const float count = static_cast<float>(p.points) * width;
  for (int group = warp; group < p.groups; group += warps) {
    const float2 *partial = p.partial + (static_cast<long long>(at.sample) * p.groups + group) * p.chunks;
    float2 total = make_float2(0.f, 0.f);
    for (int i = lane; i < p.chunks; i += 32) total.x += partial[i].x, total.y += partial[i].y;
#pragma unroll
    for (int o = 16; o > 0; o /= 2) {
      total.x += __shfl_xor_sync(~0u, total.x, o);
      total.y += __shfl_xor_sync(~0u, total.y, o);
    }
    if (lane == 0) {
      const float mean = total.x / count;
      float variance = total.y / count - mean * mean;
      if (variance < 0.f) variance = 0.f;  // not fmaxf: NaN stays
      stats[group] = make_float2(pivot_of(p, at.sample, added, group * width) + mean, 1.f / sqrtf(variance + p.eps));
    }
  }
  __syncthreads();
  if (at.line >= p.lines) return;
  const T *scale = static_cast<const T *>(p.scale), *shift = static_cast<const T *>(p.shift);
  const long long row = static_cast<long long>(at.sample) * p.channels;
  for (int column = at.column; column < columns; column += p.tile) {
    const int channel = column * N;
    float mean[N], factor[N], offset[N];
    load_values(factor, static_cast<const T *>(p.weight) + channel);
    load_values(offset, static_cast<const T *>(p.bias) + channel);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float2 stat = stats[(channel + i) / width];
      mean[i] = added ? stat.x - to_float(added[channel + i]) : stat.x;
      factor[i] *= stat.y;
      if (scale) {
        const float by = 1.f + to_float(scale[row + channel + i]);
        factor[i] *= by, offset[i] = fmaf(offset[i], by, to_float(shift[row + channel + i]));
      }
    }
    const Source<T> from = source_of<T>(p, at.sample, channel);
    const auto map = [&](const Raw<T, N> &raw, long long point) {
      float v[N];
      raw.values(v);
#pragma unroll
      for (int i = 0; i < N; ++i) v[i] = fmaf(v[i] - mean[i], factor[i], offset[i]);
      activate(v, p.activation);
      store_values(out + point * p.channels + channel, v);
    };
    long long point = at.last - 1 - at.line;
    for (; point - (AHEAD - 1) * p.lines >= at.first; point -= AHEAD * p.lines) {
      Raw<T, N> raw[AHEAD];
#pragma unroll
      for (int j = 0; j < AHEAD; ++j) raw[j].load(from.first + (point - j * p.lines) * from.width);
#pragma unroll
      for (int j = 0; j < AHEAD; ++j) map(raw[j], point - j * p.lines);
    }
    for (; point >= at.first; point -= p.lines) {
      Raw<T, N> raw;
      raw.load(from.first + point * from.width);
      map(raw, point);
    }
  }
}

#define GROUP(NAME, N)                                                                                       \
  extern "C" __global__ void __launch_bounds__(512, 2) group_stats_##NAME(const __grid_constant__ GroupParams p) { \
    group_stats_body<ELEMENT, N>(p);                                                                         \
  }                                                                                                          \
  extern "C" __global__ void __launch_bounds__(512, 2) group_apply_##NAME(const __grid_constant__ GroupParams p) { \
    group_apply_body<ELEMENT, N>(p);                                                                         \
  }
GROUP(wide, WIDE<ELEMENT>)
GROUP(one, 1)

// Mirrors `LayerParams` of src/cuda/norm.rs.
struct LayerParams {
  const void *x;              // [rows, channels]
  void *out;
  const void *weight, *bias;  // [channels]
  const void *added;          // [period, channels] or null: row r gets row (r / repeat) % period after the norm
  long long rows, repeat;
  int channels, lanes, period;
  float eps;
};

// Eight, sixteen or 32 lanes hold a row in registers, V vectors each.
template <typename T, int V> __device__ __forceinline__ void layer_rows(const LayerParams &p) {
  constexpr int N = WIDE<T>;
  const int lane = threadIdx.x % p.lanes, columns = p.channels / N;
  const long long row = (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x) / p.lanes;
  const bool there = row < p.rows;
  const T *x = static_cast<const T *>(p.x) + row * p.channels;
  float v[V][N];
  float sum = 0.f;
#pragma unroll
  for (int j = 0; j < V; ++j) {
    const int column = j * p.lanes + lane;
    if (there && column < columns) {
      load_values(v[j], x + column * N);
    } else {
#pragma unroll
      for (int i = 0; i < N; ++i) v[j][i] = 0.f;
    }
#pragma unroll
    for (int i = 0; i < N; ++i) sum += v[j][i];
  }
  for (int o = p.lanes / 2; o > 0; o /= 2) sum += __shfl_xor_sync(~0u, sum, o);
  const float mean = sum / p.channels;
  float square = 0.f;
#pragma unroll
  for (int j = 0; j < V; ++j) {
    if (j * p.lanes + lane < columns) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        v[j][i] -= mean;
        square = fmaf(v[j][i], v[j][i], square);
      }
    }
  }
  for (int o = p.lanes / 2; o > 0; o /= 2) square += __shfl_xor_sync(~0u, square, o);
  if (!there) return;
  const float factor = 1.f / sqrtf(square / p.channels + p.eps);
  const T *added = static_cast<const T *>(p.added);
  if (added) added += row / p.repeat % p.period * p.channels;
  T *out = static_cast<T *>(p.out) + row * p.channels;
#pragma unroll
  for (int j = 0; j < V; ++j) {
    const int column = j * p.lanes + lane;
    if (column >= columns) continue;
    float weight[N], bias[N];
    load_values(weight, static_cast<const T *>(p.weight) + column * N);
    load_values(bias, static_cast<const T *>(p.bias) + column * N);
#pragma unroll
    for (int i = 0; i < N; ++i) v[j][i] = fmaf(v[j][i] * factor, weight[i], bias[i]);
    if (added) {
      float more[N];
      load_values(more, added + column * N);
#pragma unroll
      for (int i = 0; i < N; ++i) v[j][i] += more[i];
    }
    store_values(out + column * N, v[j]);
  }
}

#define LAYER(V)                                                                                            \
  extern "C" __global__ void __launch_bounds__(256) layer_norm_##V(const __grid_constant__ LayerParams p) { \
    layer_rows<ELEMENT, V>(p);                                                                              \
  }
LAYER(1) LAYER(2) LAYER(3) LAYER(4) LAYER(5) LAYER(6) LAYER(8) LAYER(10)

__device__ __forceinline__ float block_sum(float x, float *shared) {
#pragma unroll
  for (int o = 16; o > 0; o /= 2) x += __shfl_xor_sync(~0u, x, o);
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  float total = 0.f;
  for (unsigned i = 0; i < blockDim.x / 32; ++i) total += shared[i];
  return total;
}

// Any width and alignment: a block a row, read three times, from the caches but for the first.
extern "C" __global__ void __launch_bounds__(256) layer_norm_any(const __grid_constant__ LayerParams p) {
  using T = ELEMENT;
  __shared__ float shared[8];
  for (long long row = blockIdx.x; row < p.rows; row += gridDim.x) {
    const T *x = static_cast<const T *>(p.x) + row * p.channels;
    T *out = static_cast<T *>(p.out) + row * p.channels;
    float sum = 0.f, square = 0.f;
    for (int c = threadIdx.x; c < p.channels; c += blockDim.x) sum += to_float(x[c]);
    const float mean = block_sum(sum, shared) / p.channels;
    for (int c = threadIdx.x; c < p.channels; c += blockDim.x) {
      const float d = to_float(x[c]) - mean;
      square = fmaf(d, d, square);
    }
    const float factor = 1.f / sqrtf(block_sum(square, shared) / p.channels + p.eps);
    const T *weight = static_cast<const T *>(p.weight), *bias = static_cast<const T *>(p.bias);
    const T *added = static_cast<const T *>(p.added);
    if (added) added += row / p.repeat % p.period * p.channels;
    for (int c = threadIdx.x; c < p.channels; c += blockDim.x) {
      float y = fmaf((to_float(x[c]) - mean) * factor, to_float(weight[c]), to_float(bias[c]));
      if (added) y += to_float(added[c]);
      out[c] = from_float<T>(y);
    }
  }
}
