#include "cuda_kernel.h"

#include "cuda_launch.h"
#include "cuda_vectors.h"

namespace jr {
namespace {

constexpr unsigned kVectorsPerThread = 4;   // four 16-byte loads in flight hide the latency of memory
constexpr std::uint64_t kManyBlocks = 512;  // fewer leave processors idle: GPUs have up to some 150 of them

template <bool kHasCap, class Bits, class Ready>
__device__ __forceinline__ int4 apply(int4 value, const Ready& ready) {
  constexpr int kWidth = sizeof(int4) / sizeof(Bits);
  Elements<Bits, kWidth> vector;
  vector.whole = value;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) vector.element[i] = ready.template apply<kHasCap>(vector.element[i]);
  return vector.whole;
}

// Whole 16-byte vectors, then the rest of fewer elements than one vector. A thread reads its elements before it
// writes them, and no other thread touches them, so the pass may be in place.
template <unsigned kPerThread, bool kHasCap, class Site, class Bits = typename Site::Bits>
__global__ void __launch_bounds__(kThreads) vector_pass(const Bits* in, Bits* out, std::uint64_t count, Site site) {
  constexpr std::uint64_t kPerVector = sizeof(int4) / sizeof(Bits);
  constexpr std::uint64_t kPerBlock = kThreads * kPerThread;
  const auto ready = site.ready();
  const std::uint64_t vectors = count / kPerVector;
  const int4* in_vectors = reinterpret_cast<const int4*>(in);
  int4* out_vectors = reinterpret_cast<int4*>(out);
  for (std::uint64_t block = blockIdx.x; block * kPerBlock < vectors; block += gridDim.x) {
    const std::uint64_t first = block * kPerBlock + threadIdx.x;
    int4 value[kPerThread];
#pragma unroll
    for (unsigned i = 0; i < kPerThread; ++i) {
      const std::uint64_t at = first + std::uint64_t{i} * kThreads;
      if (at < vectors) value[i] = in_vectors[at];
    }
#pragma unroll
    for (unsigned i = 0; i < kPerThread; ++i) {
      const std::uint64_t at = first + std::uint64_t{i} * kThreads;
      if (at < vectors) out_vectors[at] = apply<kHasCap, Bits>(value[i], ready);
    }
  }
  const std::uint64_t rest = vectors * kPerVector + threadIdx.x;
  if (blockIdx.x == 0 && rest < count) out[rest] = ready.template apply<kHasCap>(in[rest]);
}

// For buffers that do not start at a multiple of 16 bytes.
template <bool kHasCap, class Site, class Bits = typename Site::Bits>
__global__ void __launch_bounds__(kThreads) scalar_pass(const Bits* in, Bits* out, std::uint64_t count, Site site) {
  const auto ready = site.ready();
  const std::uint64_t step = std::uint64_t{gridDim.x} * kThreads;
  for (std::uint64_t i = std::uint64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += step) {
    out[i] = ready.template apply<kHasCap>(in[i]);
  }
}

// Large tensors: four vectors a thread, for bandwidth. Small ones: one, so that every processor gets a block.
template <bool kHasCap, class Site, class Bits = typename Site::Bits>
void launch(cudaStream_t stream, const Bits* in, Bits* out, std::uint64_t count, const Site& site) {
  const std::uint64_t vectors = count / (sizeof(int4) / sizeof(Bits));
  auto kernel = scalar_pass<kHasCap, Site>;
  unsigned blocks = blocks_for(count, kThreads);
  if (is_aligned(in) && is_aligned(out)) {
    const bool large = vectors >= kManyBlocks * kThreads * kVectorsPerThread;
    kernel = large ? vector_pass<kVectorsPerThread, kHasCap, Site> : vector_pass<1, kHasCap, Site>;
    blocks = blocks_for(vectors, kThreads * (large ? kVectorsPerThread : 1));
  }
  JR_LAUNCH(kernel, blocks, kThreads, stream, in, out, count, site);
}

}  // namespace

template <class Site>
const char* launch_pass(void* stream, const typename Site::Bits* in, typename Site::Bits* out, std::uint64_t count,
                        const Site& site, bool has_cap) {
  if (count == 0) return nullptr;
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  if (has_cap) {
    launch<true>(cuda_stream, in, out, count, site);
  } else {
    launch<false>(cuda_stream, in, out, count, site);
  }
  return text_of(cudaGetLastError());
}

#define JR_INSTANTIATE(Site)                                                                                     \
  template const char* launch_pass<Site>(void*, const Site::Bits*, Site::Bits*, std::uint64_t, const Site&, bool)
JR_FOR_EACH_SITE(JR_INSTANTIATE)
#undef JR_INSTANTIATE

}  // namespace jr
