// JumpRelu for the CPU provider.
#include "jump_relu_cpu.h"

#include <algorithm>
#include <cstdlib>

#include "cpu_kernel.h"
#include "jump_relu_op.h"

namespace jr {
namespace {

// Bytes from which a run is handed to ONNX Runtime's threads, and the size of one piece; measured with
// tools/bench_op.py (docs/op.md). Below the threshold a second thread costs as much as it saves.
constexpr std::size_t kParallelBytes = std::size_t{512} << 10;
constexpr std::size_t kPieceBytes = std::size_t{64} << 10;

// The threshold, or the value of JR_ONNX_PARALLEL_BYTES, by which it was measured.
std::size_t parallel_bytes() {
  const char* wish = std::getenv("JR_ONNX_PARALLEL_BYTES");
  if (wish == nullptr) return kParallelBytes;
  char* end = nullptr;
  const unsigned long long value = std::strtoull(wish, &end, 10);
  return end == wish || *end != '\0' ? kParallelBytes : static_cast<std::size_t>(value);
}

template <class E, ort::ElementType kType>
class CpuKernel : public JumpReluKernel<E> {
 public:
  using Bits = typename E::Bits;
  static constexpr ort::ElementType kElementType = kType;

  explicit CpuKernel(const Runtime& runtime) : JumpReluKernel<E>(runtime) {}

  const ort::Api* api() const { return this->runtime().api; }

  ort::Status* initialize(const ort::KernelInfo* info) {
    ort::Status* status = JumpReluKernel<E>::initialize(info);
    pass_ = select_pass<Bits>(choose_isa(), this->has_cap());
    parallel_bytes_ = parallel_bytes();
    return status;
  }

  ort::Status* compute(ort::KernelContext* context) const {
    Buffers buffers;
    ort::Status* status = open_buffers(this->runtime(), context, &buffers);
    if (status != nullptr || buffers.count == 0) return status;
    Work work{pass_, static_cast<const Bits*>(buffers.in), static_cast<Bits*>(buffers.out), buffers.count, {}};
    status = this->jump_of_run(context, &work.jump);
    if (status != nullptr) return status;
    if (buffers.count * sizeof(Bits) < parallel_bytes_) {
      pass_(work.in, work.out, work.count, work.jump);
      return nullptr;
    }
    const std::size_t pieces = (buffers.count + kPiece - 1) / kPiece;
    return api()->KernelContext_ParallelFor(context, run_piece, pieces, 0, &work);
  }

 private:
  static constexpr std::size_t kPiece = kPieceBytes / sizeof(Bits);

  struct Work {
    Pass<Bits> pass;
    const Bits* in;
    Bits* out;
    std::size_t count;
    Jump<Bits> jump;
  };

  static void run_piece(void* data, std::size_t index) {
    const Work& work = *static_cast<const Work*>(data);
    const std::size_t begin = index * kPiece;
    work.pass(work.in + begin, work.out + begin, std::min(kPiece, work.count - begin), work.jump);
  }

  Pass<Bits> pass_ = nullptr;
  std::size_t parallel_bytes_ = kParallelBytes;
};

}  // namespace

void add_cpu_entries(const Runtime& runtime, std::vector<OpEntry>* out) {
  out->push_back(jump_relu_entry<CpuKernel<Float32, ort::kFloat>>(runtime, nullptr));
  out->push_back(jump_relu_entry<CpuKernel<Float64, ort::kDouble>>(runtime, nullptr));
  out->push_back(jump_relu_entry<CpuKernel<Float16, ort::kFloat16>>(runtime, nullptr));
  out->push_back(jump_relu_entry<CpuKernel<Bfloat16, ort::kBfloat16>>(runtime, nullptr));
}

}  // namespace jr
