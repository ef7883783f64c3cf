#include "bias_kernel.h"

#include "cuda_launch.h"
#include "cuda_vectors.h"

namespace jr {
namespace {

using Number = std::uint32_t;  // 32 bits, for divisions by 64 cost twice as much; larger tensors go in slices
constexpr std::uint64_t kLargestSlice = std::uint64_t{1} << 31;  // a step of the grid beyond it still fits

// Walks the channels of consecutive elements; one division at the start.
struct Cursor {
  Number inner, channels, rest, channel;

  __device__ __forceinline__ Cursor(Number at, Number inner, Number channels)
      : inner(inner), channels(channels), rest(at % inner), channel(at / inner % channels) {}

  __device__ __forceinline__ void next() {
    if (++rest < inner) return;
    rest = 0;
    if (++channel == channels) channel = 0;
  }
};

// `kWidth` elements a load: a whole 16-byte vector, then the rest of fewer elements than one; or single elements, for
// buffers that do not start at a multiple of 16 bytes. A thread reads its elements before it writes them, and no other
// thread touches them, so the pass may be in place. Where there is no cap, the cap is +inf.
template <int kWidth, bool kHasBias, bool kHasResidual, class Site, class E = typename Site::Element>
__global__ void __launch_bounds__(kThreads)
    bias_pass(const typename E::Bits* in, const typename E::Bits* bias, const typename E::Bits* residual,
              typename E::Bits* out, Number count, Number inner, Number channels, Site site) {
  using Bits = typename E::Bits;
  const auto ready = site.ready();
  const auto compute = [&](Bits value, Bits other, Number channel) {
    Bits z = kHasBias ? E::add(value, bias[channel]) : value;
    if (kHasResidual) z = E::add(z, other);
    return ready.template apply<true>(z, channel);
  };
  const Number step = static_cast<Number>(gridDim.x) * kThreads * kWidth;
  for (Number at = (static_cast<Number>(blockIdx.x) * kThreads + threadIdx.x) * kWidth; at + kWidth <= count; at += step) {
    Elements<Bits, kWidth> value = load<kWidth>(in + at);
    const Elements<Bits, kWidth> other = kHasResidual ? load<kWidth>(residual + at) : value;
    Cursor cursor(at, inner, channels);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      value.element[i] = compute(value.element[i], other.element[i], cursor.channel);
      cursor.next();
    }
    store<kWidth>(value, out + at);
  }
  const Number rest = count - count % kWidth + threadIdx.x;
  if (blockIdx.x == 0 && rest < count) {
    out[rest] = compute(in[rest], kHasResidual ? residual[rest] : Bits{0}, rest / inner % channels);
  }
}

template <bool kHasBias, bool kHasResidual, class Site, class Bits = typename Site::Bits>
void launch(cudaStream_t stream, const Bits* in, const Bits* bias, const Bits* residual, Bits* out,
            const Channels& shape, const Site& site) {
  constexpr int kWhole = sizeof(int4) / sizeof(Bits);
  const bool aligned = is_aligned(in) && is_aligned(out) && (!kHasResidual || is_aligned(residual));
  const auto kernel =
      aligned ? bias_pass<kWhole, kHasBias, kHasResidual, Site> : bias_pass<1, kHasBias, kHasResidual, Site>;
  const unsigned blocks = blocks_for(shape.count / (aligned ? kWhole : 1), kThreads);
  JR_LAUNCH(kernel, blocks, kThreads, stream, in, bias, residual, out, static_cast<Number>(shape.count),
            static_cast<Number>(shape.inner), static_cast<Number>(shape.channels), site);
}

// Calls launch(begin, part) for slices of whole samples that 32-bit indices reach.
template <class Launch>
const char* in_slices(const Channels& shape, const Launch& launch) {
  if (shape.count == 0) return nullptr;
  const std::uint64_t sample = shape.inner * shape.channels;
  if (sample >= kLargestSlice) return "one sample has 2^31 or more elements";
  const std::uint64_t slice = kLargestSlice / sample * sample;
  for (std::uint64_t begin = 0; begin < shape.count; begin += slice) {
    launch(begin, Channels{shape.count - begin < slice ? shape.count - begin : slice, shape.inner, shape.channels});
  }
  return text_of(cudaGetLastError());
}

}  // namespace

template <class Site>
const char* launch_bias_pass(void* stream, const typename Site::Bits* in, const typename Site::Bits* bias,
                             const typename Site::Bits* residual, typename Site::Bits* out, const Channels& shape,
                             const Site& site) {
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  return in_slices(shape, [&](std::uint64_t begin, const Channels& part) {
    if (residual != nullptr) {
      launch<true, true>(cuda_stream, in + begin, bias, residual + begin, out + begin, part, site);
    } else {
      launch<true, false>(cuda_stream, in + begin, bias, residual, out + begin, part, site);
    }
  });
}

template <class E>
const char* launch_channel_pass(void* stream, const typename E::Bits* in, typename E::Bits* out, const Channels& shape,
                                const KappaPerChannel<E>& site) {
  using Bits = typename E::Bits;
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  return in_slices(shape, [&](std::uint64_t begin, const Channels& part) {
    launch<false, false>(cuda_stream, in + begin, static_cast<const Bits*>(nullptr), static_cast<const Bits*>(nullptr),
                         out + begin, part, site);
  });
}

#define JR_INSTANTIATE(Site)                                                                                       \
  template const char* launch_bias_pass<Site>(void*, const Site::Bits*, const Site::Bits*, const Site::Bits*,      \
                                              Site::Bits*, const Channels&, const Site&)
#define JR_INSTANTIATE_CHANNELS(E)                                                                              \
  JR_INSTANTIATE(KappaPerChannel<E>);                                                                           \
  template const char* launch_channel_pass<E>(void*, const E::Bits*, E::Bits*, const Channels&, const KappaPerChannel<E>&)
JR_FOR_EACH_SITE(JR_INSTANTIATE)
JR_FOR_EACH_ELEMENT(JR_INSTANTIATE_CHANNELS)
#undef JR_INSTANTIATE_CHANNELS
#undef JR_INSTANTIATE

}  // namespace jr
