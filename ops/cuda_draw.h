// Random kappas drawn on the GPU; no CUDA type appears here, so that the host compiler can read it.
#pragma once

#include <atomic>
#include <cstdint>

#include "chacha.h"

namespace jr {

// One node's generator: a ChaCha20 key from the operating system's entropy, and a counter in device memory that the
// kernel advances. So every draw differs, in every replay of a captured CUDA graph too, and threads may draw at once.
class DeviceDraw {
 public:
  DeviceDraw() = default;
  DeviceDraw(const DeviceDraw&) = delete;
  DeviceDraw& operator=(const DeviceDraw&) = delete;
  ~DeviceDraw();

  // Takes a key, and memory on the current device. Returns null, or what went wrong as a text that needs no freeing.
  const char* open();

  // Queues on a CUDA stream: *out = a number drawn uniformly from [low, high). `out` is device memory.
  const char* launch(void* stream, float low, float high, float* out) const;

  // Does the same into memory of its own, for the kernels that are queued behind it on the same stream.
  const char* launch(void* stream, float low, float high, const float** out) const;

 private:
  ChaChaKey key_{};
  unsigned long long* counter_ = nullptr;
  float* slots_ = nullptr;
  mutable std::atomic<std::uint32_t> next_slot_{0};
};

}  // namespace jr
