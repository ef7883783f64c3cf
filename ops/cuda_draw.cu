#include "cuda_draw.h"

#include "cuda_launch.h"
#include "kappa.h"

namespace jr {
namespace {

// A draw and the pass that reads it may be in flight on several streams at once. A slot is used again after this many
// draws, far more than a session has runs in flight.
constexpr std::uint32_t kSlots = 1024;

// One thread; the numbers are those of `draw_uniform` in kappa.cc, from other bits.
__global__ void draw(ChaChaKey key, unsigned long long* counter, float low, float high, float* out) {
  const double width = static_cast<double>(high) - static_cast<double>(low);
  float value = high;
  while (value >= high) {  // rounding to float can reach the end that is excluded
    const unsigned long long count = atomicAdd(counter, 1ull);
    const std::uint32_t position[4] = {static_cast<std::uint32_t>(count), static_cast<std::uint32_t>(count >> 32), 0, 0};
    std::uint32_t word[16];
    chacha20_block(key, position, word);
    const std::uint64_t bits = (static_cast<std::uint64_t>(word[1]) << 32) | word[0];
    const double unit = static_cast<double>(bits >> 11) * (1.0 / 9007199254740992.0);  // 2^-53
    value = static_cast<float>(static_cast<double>(low) + unit * width);
  }
  *out = value;
}

}  // namespace

DeviceDraw::~DeviceDraw() {
  // At the end of the process the runtime may be gone already; the memory is gone with it.
  cudaFree(counter_);
  cudaFree(slots_);
}

const char* DeviceDraw::open() {
  if (!read_entropy(&key_, sizeof key_)) return "the operating system gives no random numbers";
  cudaError_t error = cudaMalloc(reinterpret_cast<void**>(&counter_), sizeof *counter_);
  if (error == cudaSuccess) error = cudaMemset(counter_, 0, sizeof *counter_);
  if (error == cudaSuccess) error = cudaMalloc(reinterpret_cast<void**>(&slots_), kSlots * sizeof *slots_);
  return text_of(error);
}

const char* DeviceDraw::launch(void* stream, float low, float high, float* out) const {
  JR_LAUNCH(draw, 1, 1, static_cast<cudaStream_t>(stream), key_, counter_, low, high, out);
  return text_of(cudaGetLastError());
}

const char* DeviceDraw::launch(void* stream, float low, float high, const float** out) const {
  float* slot = slots_ + next_slot_.fetch_add(1, std::memory_order_relaxed) % kSlots;
  *out = slot;
  return launch(stream, low, high, slot);
}

}  // namespace jr
