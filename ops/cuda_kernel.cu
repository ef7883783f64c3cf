#include "cuda_kernel.h"

#include <cuda_runtime.h>

namespace jr {
namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kVectorsPerThread = 4;       // four 16-byte loads in flight hide the latency of memory
constexpr std::uint64_t kMaxBlocks = 1u << 30;  // below the limit of the grid; beyond it a block loops

template <class Bits>
union Vector {
  int4 whole;
  Bits element[sizeof(int4) / sizeof(Bits)];
};

template <bool kHasCap, class Bits>
__device__ __forceinline__ int4 apply(int4 value, const Jump<Bits>& jump) {
  Vector<Bits> vector;
  vector.whole = value;
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(int4) / sizeof(Bits)); ++i) {
    vector.element[i] = jump_relu<kHasCap>(vector.element[i], jump);
  }
  return vector.whole;
}

// Whole 16-byte vectors, then the rest of fewer elements than one vector. A thread reads its elements before it
// writes them, and no other thread touches them, so the pass may be in place.
template <bool kHasCap, class Bits>
__global__ void __launch_bounds__(kThreads)
    vector_pass(const Bits* in, Bits* out, std::uint64_t count, Jump<Bits> jump) {
  constexpr std::uint64_t kPerVector = sizeof(int4) / sizeof(Bits);
  constexpr std::uint64_t kPerBlock = kThreads * kVectorsPerThread;
  const std::uint64_t vectors = count / kPerVector;
  const int4* in_vectors = reinterpret_cast<const int4*>(in);
  int4* out_vectors = reinterpret_cast<int4*>(out);
  for (std::uint64_t block = blockIdx.x; block * kPerBlock < vectors; block += gridDim.x) {
    const std::uint64_t first = block * kPerBlock + threadIdx.x;
    int4 value[kVectorsPerThread];
#pragma unroll
    for (unsigned i = 0; i < kVectorsPerThread; ++i) {
      const std::uint64_t at = first + std::uint64_t{i} * kThreads;
      if (at < vectors) value[i] = in_vectors[at];
    }
#pragma unroll
    for (unsigned i = 0; i < kVectorsPerThread; ++i) {
      const std::uint64_t at = first + std::uint64_t{i} * kThreads;
      if (at < vectors) out_vectors[at] = apply<kHasCap>(value[i], jump);
    }
  }
  const std::uint64_t rest = vectors * kPerVector + threadIdx.x;
  if (blockIdx.x == 0 && rest < count) out[rest] = jump_relu<kHasCap>(in[rest], jump);
}

// For buffers that do not start at a multiple of 16 bytes.
template <bool kHasCap, class Bits>
__global__ void __launch_bounds__(kThreads)
    scalar_pass(const Bits* in, Bits* out, std::uint64_t count, Jump<Bits> jump) {
  const std::uint64_t step = std::uint64_t{gridDim.x} * kThreads;
  for (std::uint64_t i = std::uint64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += step) {
    out[i] = jump_relu<kHasCap>(in[i], jump);
  }
}

bool is_aligned(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % sizeof(int4) == 0; }

unsigned blocks_for(std::uint64_t items, std::uint64_t per_block) {
  const std::uint64_t blocks = (items + per_block - 1) / per_block;
  return static_cast<unsigned>(blocks == 0 ? 1 : blocks < kMaxBlocks ? blocks : kMaxBlocks);
}

template <bool kHasCap, class Bits>
void launch(cudaStream_t stream, const Bits* in, Bits* out, std::uint64_t count, const Jump<Bits>& jump) {
  if (is_aligned(in) && is_aligned(out)) {
    const std::uint64_t vectors = count / (sizeof(int4) / sizeof(Bits));
    const unsigned blocks = blocks_for(vectors, kThreads * kVectorsPerThread);
    vector_pass<kHasCap, Bits><<<blocks, kThreads, 0, stream>>>(in, out, count, jump);
  } else {
    scalar_pass<kHasCap, Bits><<<blocks_for(count, kThreads), kThreads, 0, stream>>>(in, out, count, jump);
  }
}

}  // namespace

template <class Bits>
const char* launch_pass(void* stream, const Bits* in, Bits* out, std::uint64_t count, const Jump<Bits>& jump,
                        bool has_cap) {
  if (count == 0) return nullptr;
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  if (has_cap) {
    launch<true>(cuda_stream, in, out, count, jump);
  } else {
    launch<false>(cuda_stream, in, out, count, jump);
  }
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

template const char* launch_pass<std::int16_t>(void*, const std::int16_t*, std::int16_t*, std::uint64_t,
                                               const Jump<std::int16_t>&, bool);
template const char* launch_pass<std::int32_t>(void*, const std::int32_t*, std::int32_t*, std::uint64_t,
                                               const Jump<std::int32_t>&, bool);
template const char* launch_pass<std::int64_t>(void*, const std::int64_t*, std::int64_t*, std::uint64_t,
                                               const Jump<std::int64_t>&, bool);

const char* is_capturing(void* stream, bool* out) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  const cudaError_t error = cudaStreamIsCapturing(static_cast<cudaStream_t>(stream), &status);
  *out = status != cudaStreamCaptureStatusNone;
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace jr
