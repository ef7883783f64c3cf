// JumpRelu for the CUDA provider.
#include "jump_relu_cuda.h"

#include "cuda_kernel.h"
#include "jump_relu_op.h"

namespace jr {
namespace {

template <class E, ort::ElementType kType>
class CudaKernel : public JumpReluKernel<E> {
 public:
  using Bits = typename E::Bits;
  static constexpr ort::ElementType kElementType = kType;

  explicit CudaKernel(const Runtime& runtime) : JumpReluKernel<E>(runtime) {}

  const ort::Api* api() const { return this->runtime().api; }

  ort::Status* compute(ort::KernelContext* context) const {
    Buffers buffers;
    ort::Status* status = open_buffers(this->runtime(), context, &buffers);
    if (status != nullptr || buffers.count == 0) return status;
    void* stream = nullptr;
    status = api()->KernelContext_GetGPUComputeStream(context, &stream);
    if (status == nullptr && this->kappa_changes()) status = refuse_capture(stream);
    Jump<Bits> jump{};
    if (status == nullptr) status = this->jump_of_run(context, &jump);
    if (status != nullptr) return status;
    const char* error = launch_pass<Bits>(stream, static_cast<const Bits*>(buffers.in),
                                          static_cast<Bits*>(buffers.out), buffers.count, jump, this->has_cap());
    return cuda_status(error);
  }

 private:
  // kappa travels as an argument of the launch, so a captured graph would replay the kappa of its capture for good.
  ort::Status* refuse_capture(void* stream) const {
    bool capturing = false;
    const char* error = is_capturing(stream, &capturing);
    if (error != nullptr) return cuda_status(error);
    if (!capturing) return nullptr;
    return fail(api(), ort::kFail,
                this->node() + ": kappa changes from run to run, and a captured CUDA graph would replay one value; "
                               "disable enable_cuda_graph or use a fixed kappa");
  }

  ort::Status* cuda_status(const char* error) const {
    if (error == nullptr) return nullptr;
    return fail(api(), ort::kFail, this->node() + ": CUDA says: " + error);
  }
};

constexpr const char* kProvider = "CUDAExecutionProvider";

}  // namespace

void add_cuda_entries(const Runtime& runtime, std::vector<OpEntry>* out) {
  out->push_back(jump_relu_entry<CudaKernel<Float32, ort::kFloat>>(runtime, kProvider));
  out->push_back(jump_relu_entry<CudaKernel<Float64, ort::kDouble>>(runtime, kProvider));
  out->push_back(jump_relu_entry<CudaKernel<Float16, ort::kFloat16>>(runtime, kProvider));
  out->push_back(jump_relu_entry<CudaKernel<Bfloat16, ort::kBfloat16>>(runtime, kProvider));
}

}  // namespace jr
