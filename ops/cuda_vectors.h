// What the element-wise kernels share: blocks, alignment, loads of 16 bytes.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace jr {

constexpr unsigned kThreads = 256;
constexpr std::uint64_t kMaxBlocks = 1u << 20;  // enough for any GPU; beyond it a block loops

template <class Bits, int kWidth>
union Elements {
  int4 whole;
  Bits element[kWidth];
};

template <class Bits>
union Elements<Bits, 1> {
  Bits element[1];
};

// Loads and stores a whole vector where kWidth fills 16 bytes, else one element.
template <int kWidth, class Bits>
__device__ __forceinline__ Elements<Bits, kWidth> load(const Bits* from) {
  Elements<Bits, kWidth> result;
  if constexpr (kWidth == 1) {
    result.element[0] = *from;
  } else {
    static_assert(kWidth * sizeof(Bits) == sizeof(int4), "a vector has 16 bytes");
    result.whole = *reinterpret_cast<const int4*>(from);
  }
  return result;
}

template <int kWidth, class Bits>
__device__ __forceinline__ void store(const Elements<Bits, kWidth>& value, Bits* to) {
  if constexpr (kWidth == 1) {
    *to = value.element[0];
  } else {
    *reinterpret_cast<int4*>(to) = value.whole;
  }
}

inline bool is_aligned(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % sizeof(int4) == 0; }

inline unsigned blocks_for(std::uint64_t items, std::uint64_t per_block) {
  const std::uint64_t blocks = (items + per_block - 1) / per_block;
  return static_cast<unsigned>(blocks == 0 ? 1 : blocks < kMaxBlocks ? blocks : kMaxBlocks);
}

}  // namespace jr
