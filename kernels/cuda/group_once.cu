// Group normalisation in one launch for samples that fit the shared memory of a few multiprocessors: each value
// is read from device memory once. Hopper; compile with -DELEMENT=__half or __nv_bfloat16.
//
// A cluster of blocks takes some neighbouring groups of one sample, each block a piece of its points. A block
// keeps its piece in shared memory, sums it up, reads its neighbours' sums, and maps what it kept. Each thread
// meets again only values that it loaded itself.
#include "sources.cuh"

// Mirrors `OnceParams` of src/cuda/norm/once.rs. All data is contiguous with 16-byte bases.
struct OnceParams {
  const void *x;               // [samples, points, channels], or the first `split` of the channels
  const void *rest;            // [samples, points, channels - split] or null: the other channels
  void *out;
  const void *weight, *bias;   // [channels]
  const void *added;           // [samples / added_samples, channels] or null: the norm is of x + added
  const void *scale, *shift;   // [samples, channels] or null
  int points, channels, split; // split: a multiple of a vector; channels without `rest`
  int width;                   // channels of a group
  int slabs, slab_groups;      // parts of a sample's groups; groups of a part
  int added_samples, activation;
  float eps;
};

constexpr int THREADS = 256, AHEAD = 4;

__device__ __forceinline__ void cluster_arrive() { asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory"); }
__device__ __forceinline__ void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }
// The value at `address` in the shared memory of block `rank` of the cluster.
__device__ __forceinline__ float2 cluster_read(uint32_t address, int rank) {
  uint32_t there;
  float2 value;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
  asm volatile("ld.shared::cluster.v2.f32 {%0, %1}, [%2];" : "=f"(value.x), "=f"(value.y) : "r"(there) : "memory");
  return value;
}

template <typename T, int CLUSTER> __device__ __forceinline__ void group_once(const OnceParams &p) {
  constexpr int N = WIDE<T>;
  extern __shared__ uint4 kept[];
  const int columns = p.slab_groups * p.width / N, lines = THREADS / columns;
  const int unit = blockIdx.x / CLUSTER, rank = blockIdx.x % CLUSTER;
  const int sample = unit / p.slabs, slab = unit - sample * p.slabs;
  const int piece = (p.points + CLUSTER - 1) / CLUSTER;
  const int first = min(rank * piece, p.points), count = min(piece, p.points - first);
  // Behind the piece: a thread's sums and squares, then the totals of the groups and their statistics.
  float *sums = reinterpret_cast<float *>(kept + piece * columns), *squares = sums + lines * columns * N;
  float2 *totals = reinterpret_cast<float2 *>(squares + lines * columns * N), *stats = totals + p.slab_groups;

  const int column = threadIdx.x % columns, line = threadIdx.x / columns;
  const int start = slab * p.slab_groups * p.width, channel = start + column * N;
  const long long at = static_cast<long long>(sample) * p.points * p.channels;
  const T *added = static_cast<const T *>(p.added);
  if (added) added += static_cast<long long>(sample / p.added_samples) * p.channels;
  // Sums are taken about the group's first value, so that a large mean does not swallow the deviations.
  const auto pivot_of = [&](int group) {
    const float value = to_float(*source_of<T>(p, sample, start + group * p.width).first);
    return added ? value + to_float(added[start + group * p.width]) : value;
  };
  const bool works = line < lines;
  if (works) {
    float s[N] = {}, q[N] = {}, pivot[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      pivot[i] = pivot_of((column * N + i) / p.width);
      if (added) pivot[i] -= to_float(added[channel + i]);
    }
    const Source<T> source = source_of<T>(p, sample, channel);
    const T *from = source.first + first * source.width;
    const auto take = [&](const Raw<T, N> &raw, int row) {
      float v[N];
      kept[row * columns + column] = raw.vector;
      raw.values(v);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const float d = v[i] - pivot[i];
        s[i] += d, q[i] = fmaf(d, d, q[i]);
      }
    };
    int row = line;
    for (; row + (AHEAD - 1) * lines < count; row += AHEAD * lines) {
      Raw<T, N> raw[AHEAD];
#pragma unroll
      for (int j = 0; j < AHEAD; ++j) raw[j].load(from + (row + j * lines) * source.width);
#pragma unroll
      for (int j = 0; j < AHEAD; ++j) take(raw[j], row + j * lines);
    }
    for (; row < count; row += lines) {
      Raw<T, N> raw;
      raw.load(from + row * source.width);
      take(raw, row);
    }
    // Channels of a vector lie apart, so that a warp writes one row of banks.
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const int slot = (line * N + i) * columns + column;
      sums[slot] = s[i], squares[slot] = q[i];
    }
  }
  __syncthreads();
  // A warp adds one group at a time, in a fixed order.
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int group = warp; group < p.slab_groups; group += THREADS / 32) {
    float2 total = make_float2(0.f, 0.f);
    for (int i = lane; i < p.width * lines; i += 32) {
      const int l = i / p.width, c = group * p.width + i - l * p.width, slot = (l * N + c % N) * columns + c / N;
      total.x += sums[slot], total.y += squares[slot];
    }
#pragma unroll
    for (int o = 16; o > 0; o /= 2) {
      total.x += __shfl_xor_sync(~0u, total.x, o);
      total.y += __shfl_xor_sync(~0u, total.y, o);
    }
    if (lane == 0) totals[group] = total;
  }
  if constexpr (CLUSTER > 1) cluster_arrive(), cluster_wait();
  else __syncthreads();
  for (int group = threadIdx.x; group < p.slab_groups; group += THREADS) {
    float2 total = make_float2(0.f, 0.f);
#pragma unroll
    for (int r = 0; r < CLUSTER; ++r) {
      const float2 part = CLUSTER > 1 ? cluster_read(shared_address(totals + group), r) : totals[group];
      total.x += part.x, total.y += part.y;
    }
    const float values = static_cast<float>(p.points) * p.width, mean = total.x / values;
    float variance = total.y / values - mean * mean;
    if (variance < 0.f) variance = 0.f;  // not fmaxf: NaN stays
    stats[group] = make_float2(pivot_of(group) + mean, 1.f / sqrtf(variance + p.eps));
  }
  // No block may end while others read its sums.
  if constexpr (CLUSTER > 1) cluster_arrive();
  __syncthreads();
  if (works) {
    const T *scale = static_cast<const T *>(p.scale), *shift = static_cast<const T *>(p.shift);
    const long long film = static_cast<long long>(sample) * p.channels + channel;
    float mean[N], factor[N], offset[N];
    load_values(factor, static_cast<const T *>(p.weight) + channel);
    load_values(offset, static_cast<const T *>(p.bias) + channel);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float2 stat = stats[(column * N + i) / p.width];
      mean[i] = added ? stat.x - to_float(added[channel + i]) : stat.x;
      factor[i] *= stat.y;
      if (scale) {
        const float by = 1.f + to_float(scale[film + i]);
        factor[i] *= by, offset[i] = fmaf(offset[i], by, to_float(shift[film + i]));
      }
    }
    T *out = static_cast<T *>(p.out) + at + static_cast<long long>(first) * p.channels + channel;
    for (int row = line; row < count; row += lines) {
      Raw<T, N> raw;
      float v[N];
      raw.vector = kept[row * columns + column];
      raw.values(v);
#pragma unroll
      for (int i = 0; i < N; ++i) v[i] = fmaf(v[i] - mean[i], factor[i], offset[i]);
      activate(v, p.activation);
      store_values(out + static_cast<long long>(row) * p.channels, v);
    }
  }
  if constexpr (CLUSTER > 1) cluster_wait();
}

#define GROUP_ONCE(CLUSTER)                                                                                        \
  extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(THREADS, 2)                         \
      group_once_##CLUSTER(const __grid_constant__ OnceParams p) {                                                 \
    group_once<ELEMENT, CLUSTER>(p);                                                                               \
  }
GROUP_ONCE(1)
GROUP_ONCE(2)
GROUP_ONCE(4)
GROUP_ONCE(8)
