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
    row_pass_ = select_row_pass<Bits>(choose_isa(), this->has_cap());
    parallel_bytes_ = parallel_bytes();
    return status;
  }

  ort::Status* compute(ort::KernelContext* context) const {
    Buffers buffers;
    KappaInput kappa;
    ort::Status* status = this->open(context, &buffers, &kappa);
    if (status != nullptr || buffers.count == 0) return status;
    if (kappa.per_channel()) return compute_channels(context, buffers, kappa);
    Work work{pass_, static_cast<const Bits*>(buffers.in), static_cast<Bits*>(buffers.out), buffers.count, {}};
    status = this->jump_of_run(kappa, &work.jump);
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

  // The work of a node with a kappa for each channel, in units: the elements of one channel that lie together, with the
  // pass of one jump; or, where those are few, rows of `unit` elements with the offset of each.
  struct ChannelWork {
    Pass<Bits> pass;
    RowPass<Bits> row_pass;
    const Bits* in;
    Bits* out;
    std::size_t count;
    const std::vector<Bits>* offsets;
    std::size_t unit;
    std::size_t units_per_piece;
    bool in_rows;
    Bits cap;

    void run(std::size_t first, std::size_t last) const {
      const std::size_t begin = first * unit, end = std::min(last * unit, count);
      if (in_rows) {
        row_pass(in + begin, out + begin, end - begin, offsets->data(), unit, E::kInfinity, cap);
        return;
      }
      std::size_t channel = first % offsets->size();
      for (std::size_t at = begin; at < end; at += unit) {
        pass(in + at, out + at, unit, jump_at((*offsets)[channel], E::kInfinity, cap));
        if (++channel == offsets->size()) channel = 0;
      }
    }
  };

  ort::Status* compute_channels(ort::KernelContext* context, const Buffers& buffers, const KappaInput& kappa) const {
    // Kept from run to run, so that a run allocates nothing; the other threads of a run only read it.
    thread_local std::vector<Bits> offsets;
    const std::size_t inner = kappa.layout.inner;
    const bool in_rows = inner < kFewElements;
    ort::Status* status = this->offsets_of_run(kappa, in_rows ? inner : 1, &offsets);
    if (status != nullptr) return status;
    if (in_rows) lengthen(&offsets, buffers.count);
    const std::size_t unit = in_rows ? offsets.size() : inner;
    const ChannelWork work{pass_, row_pass_, static_cast<const Bits*>(buffers.in), static_cast<Bits*>(buffers.out),
                           buffers.count, &offsets, unit, std::max<std::size_t>(1, kPiece / unit), in_rows,
                           this->fixed().cap};
    const std::size_t units = (buffers.count + unit - 1) / unit;
    if (buffers.count * sizeof(Bits) < parallel_bytes_) {
      work.run(0, units);
      return nullptr;
    }
    const std::size_t pieces = (units + work.units_per_piece - 1) / work.units_per_piece;
    return api()->KernelContext_ParallelFor(context, run_channels, pieces, 0, const_cast<ChannelWork*>(&work));
  }

  static void run_channels(void* data, std::size_t index) {
    const ChannelWork& work = *static_cast<const ChannelWork*>(data);
    const std::size_t units = (work.count + work.unit - 1) / work.unit;
    const std::size_t first = index * work.units_per_piece;
    work.run(first, std::min(first + work.units_per_piece, units));
  }

  // Repeats a short row, as far as the tensor is longer, so that a loop over it is worth its start.
  static void lengthen(std::vector<Bits>* offsets, std::size_t count) {
    const std::size_t period = offsets->size();
    const std::size_t times = std::min(kLongRow, count) / period;
    for (std::size_t i = 1; i < times; ++i) {
      for (std::size_t j = 0; j < period; ++j) offsets->push_back((*offsets)[j]);
    }
  }

  static constexpr std::size_t kFewElements = 128 / sizeof(Bits);
  static constexpr std::size_t kLongRow = 1024 / sizeof(Bits);

  Pass<Bits> pass_ = nullptr;
  RowPass<Bits> row_pass_ = nullptr;
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
