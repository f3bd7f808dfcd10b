// Channels-last data whose channels lie in one tensor or, side by side, in two.
#pragma once
#include "vectors.cuh"

// A channel of a sample: its value at the first point, and values from a point to the next.
template <typename T> struct Source {
  const T *first;
  long long width;
};

// `Params` has x, rest, split, points and channels. The vector from `channel` on lies in one of the tensors.
template <typename T, typename Params>
__device__ __forceinline__ Source<T> source_of(const Params &p, int sample, int channel) {
  const bool here = channel < p.split;
  const long long width = here ? p.split : p.channels - p.split;
  const T *base = static_cast<const T *>(here ? p.x : p.rest) + (here ? channel : channel - p.split);
  return {base + static_cast<long long>(sample) * p.points * width, width};
}
