// JumpRelu, BiasJumpRelu and DrawKappa for the CUDA provider.
//
// Nothing here waits for the device or bakes a changing kappa into a launch, so sessions with `enable_cuda_graph` capture
// every form: a replay reads the kappa that lies in device memory then, or draws a new one.
#include "jump_relu_cuda.h"

#include "bias_jump_relu.h"
#include "bias_kernel.h"
#include "cuda_draw.h"
#include "cuda_kernel.h"
#include "draw_kappa.h"
#include "jump_relu_op.h"

namespace jr {
namespace {

ort::Status* cuda_status(const ort::Api* api, const std::string& node, const char* error) {
  return error == nullptr ? nullptr : fail(api, ort::kFail, node + ": CUDA says: " + error);
}

// What both operators share: where kappa of a run lies on the device, and the launch with it. `Base` is a kernel without its
// pass.
template <class Base, class E>
class CudaBase : public Base {
 public:
  using Bits = typename E::Bits;

  explicit CudaBase(const Runtime& runtime) : Base(runtime) {}

  const ort::Api* api() const { return this->runtime().api; }

  ort::Status* initialize(const ort::KernelInfo* info) {
    ort::Status* status = Base::initialize(info);
    if (status == nullptr) status = this->refuse_channel_block();
    if (status != nullptr || !this->attributes().has_range) return status;
    return cuda_status(api(), this->node(), draw_.open());
  }

 protected:
  // Calls `launch(stream, site)`, which returns null or an error, with kappa as a constant, in memory, or in memory for
  // each channel.
  template <class Launch>
  ort::Status* with_kappa(ort::KernelContext* context, const KappaInput& input, const Launch& launch) const {
    void* stream = nullptr;
    ort::Status* status = api()->KernelContext_GetGPUComputeStream(context, &stream);
    const float* kappa = input.data;
    if (status == nullptr && kappa == nullptr) status = draw_for_run(stream, &kappa);
    if (status != nullptr) return status;
    const Bits cap = this->fixed().cap;
    const char* error = kappa == nullptr      ? launch(stream, FixedJump<E>{this->fixed()})
                        : input.per_channel() ? launch(stream, KappaPerChannel<E>{kappa, cap})
                                              : launch(stream, KappaInMemory<E>{kappa, cap});
    return cuda_status(api(), this->node(), error);
  }

 private:
  // Where a drawn kappa lies on the device; null where it is fixed.
  ort::Status* draw_for_run(void* stream, const float** out) const {
    const JumpAttributes& attributes = this->attributes();
    if (!attributes.has_range) return nullptr;
    return cuda_status(api(), this->node(), draw_.launch(stream, attributes.low, attributes.high, out));
  }

  DeviceDraw draw_;
};

template <class E, ort::ElementType kType>
class CudaKernel : public CudaBase<JumpReluKernel<E>, E> {
 public:
  using Bits = typename E::Bits;
  static constexpr ort::ElementType kElementType = kType;

  explicit CudaKernel(const Runtime& runtime) : CudaBase<JumpReluKernel<E>, E>(runtime) {}

  ort::Status* compute(ort::KernelContext* context) const {
    Buffers buffers;
    KappaInput kappa;
    ort::Status* status = this->open(context, &buffers, &kappa);
    if (status != nullptr || buffers.count == 0) return status;
    return this->with_kappa(context, kappa, [&](void* stream, const auto& site) {
      const auto* in = static_cast<const Bits*>(buffers.in);
      auto* out = static_cast<Bits*>(buffers.out);
      if constexpr (std::is_same_v<std::decay_t<decltype(site)>, KappaPerChannel<E>>) {
        return launch_channel_pass<E>(stream, in, out, kappa.layout, site);
      } else {
        return launch_pass(stream, in, out, buffers.count, site, this->has_cap());
      }
    });
  }
};

template <class E, ort::ElementType kType>
class CudaBiasKernel : public CudaBase<BiasJumpReluKernel<E>, E> {
 public:
  using Bits = typename E::Bits;
  static constexpr ort::ElementType kElementType = kType;

  explicit CudaBiasKernel(const Runtime& runtime) : CudaBase<BiasJumpReluKernel<E>, E>(runtime) {}

  ort::Status* compute(ort::KernelContext* context) const {
    BiasOperands operands;
    ort::Status* status = this->open(context, &operands);
    if (status != nullptr || operands.shape.count == 0) return status;
    return this->with_kappa(context, operands.kappa, [&](void* stream, const auto& site) {
      return launch_bias_pass(stream, static_cast<const Bits*>(operands.buffers.in),
                              static_cast<const Bits*>(operands.bias), static_cast<const Bits*>(operands.residual),
                              static_cast<Bits*>(operands.buffers.out), operands.shape, site);
    });
  }
};

class CudaDrawKappa : public DrawKappaKernel {
 public:
  explicit CudaDrawKappa(const Runtime& runtime) : DrawKappaKernel(runtime) {}

  ort::Status* initialize(const ort::KernelInfo* info) {
    ort::Status* status = DrawKappaKernel::initialize(info);
    return status != nullptr ? status : cuda_status(api(), node(), draw_.open());
  }

  ort::Status* compute(ort::KernelContext* context) const {
    float* out = nullptr;
    void* stream = nullptr;
    ort::Status* status = open_output(context, &out);
    if (status == nullptr) status = api()->KernelContext_GetGPUComputeStream(context, &stream);
    if (status != nullptr) return status;
    return cuda_status(api(), node(), draw_.launch(stream, low(), high(), out));
  }

 private:
  DeviceDraw draw_;
};

constexpr const char* kProvider = "CUDAExecutionProvider";

}  // namespace

void add_cuda_entries(const Runtime& runtime, std::vector<OpEntry>* out) {
  out->push_back(jump_relu_entry<CudaKernel<Float32, ort::kFloat>>(runtime, kProvider));
  out->push_back(bias_jump_relu_entry<CudaBiasKernel<Float32, ort::kFloat>>(runtime, kProvider));
  out->push_back(jump_relu_entry<CudaKernel<Float64, ort::kDouble>>(runtime, kProvider));
  out->push_back(bias_jump_relu_entry<CudaBiasKernel<Float64, ort::kDouble>>(runtime, kProvider));
  out->push_back(jump_relu_entry<CudaKernel<Float16, ort::kFloat16>>(runtime, kProvider));
  out->push_back(bias_jump_relu_entry<CudaBiasKernel<Float16, ort::kFloat16>>(runtime, kProvider));
  out->push_back(jump_relu_entry<CudaKernel<Bfloat16, ort::kBfloat16>>(runtime, kProvider));
  out->push_back(bias_jump_relu_entry<CudaBiasKernel<Bfloat16, ort::kBfloat16>>(runtime, kProvider));
  out->push_back(draw_kappa_entry<CudaDrawKappa>(runtime, kProvider));
}

}  // namespace jr
