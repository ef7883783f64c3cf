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

  // The work of a node with a kappa for each channel. Channels lie alone or in blocks of `block`, and the elements of one
  // channel or block that lie together are a plane. A unit of work is a part of a plane, with the pass of one jump or of
  // the block's; or, where planes are small, a row of `part` elements with the offset of each.
  struct ChannelWork {
    Pass<Bits> pass;
    RowPass<Bits> row_pass;
    const Bits* in;
    Bits* out;
    std::size_t count;
    const std::vector<Bits>* offsets;
    std::size_t block;
    std::size_t plane;
    std::size_t part;   // elements of a unit; the last one of a plane, or the last row, may have fewer
    std::size_t parts;  // of one plane
    bool in_rows;
    Bits cap;

    std::size_t units() const { return in_rows ? (count + part - 1) / part : count / plane * parts; }

    std::size_t units_per_piece() const { return std::max<std::size_t>(1, kPiece / part); }

    void run(std::size_t first, std::size_t last) const {
      if (in_rows) {
        const std::size_t begin = first * part, end = std::min(last * part, count);
        row_pass(in + begin, out + begin, end - begin, offsets->data(), part, E::kInfinity, cap);
        return;
      }
      std::size_t at = first / parts * plane, within = first % parts * part;
      std::size_t channel = first / parts * block % offsets->size();
      for (std::size_t unit = first; unit < last; ++unit) {
        const std::size_t size = std::min(part, plane - within);
        run_part(at + within, size, offsets->data() + channel);
        within += part;
        if (within < plane) continue;
        within = 0;
        at += plane;
        channel = channel + block == offsets->size() ? 0 : channel + block;
      }
    }

    void run_part(std::size_t begin, std::size_t size, const Bits* own) const {
      if (block == 1) {
        pass(in + begin, out + begin, size, jump_at(*own, E::kInfinity, cap));
      } else {
        row_pass(in + begin, out + begin, size, own, block, E::kInfinity, cap);
      }
    }
  };

  ort::Status* compute_channels(ort::KernelContext* context, const Buffers& buffers, const KappaInput& kappa) const {
    // Kept from run to run, so that a run allocates nothing; the other threads of a run only read it.
    thread_local std::vector<Bits> offsets;
    const std::size_t block = std::max<std::size_t>(1, static_cast<std::size_t>(this->attributes().channel_block));
    if (kappa.layout.channels % block != 0) return refuse_block(kappa);
    ort::Status* status = this->offsets_of_run(kappa, &offsets);
    if (status != nullptr) return status;
    const std::size_t plane = kappa.layout.inner * block;
    const bool in_rows = plane < (block == 1 ? kFewElements : kFewInBlocks);
    if (in_rows) {
      spread(&offsets, kappa.layout.inner, block);
      lengthen(&offsets, buffers.count);
    }
    const std::size_t wanted = (plane + kPiece - 1) / kPiece;
    const std::size_t part = in_rows ? offsets.size() : ((plane / block + wanted - 1) / wanted) * block;
    const ChannelWork work{pass_, row_pass_, static_cast<const Bits*>(buffers.in), static_cast<Bits*>(buffers.out),
                           buffers.count, &offsets, block, plane, part, (plane + part - 1) / part, in_rows,
                           this->fixed().cap};
    const std::size_t units = work.units();
    if (buffers.count * sizeof(Bits) < parallel_bytes_) {
      work.run(0, units);
      return nullptr;
    }
    const std::size_t pieces = (units + work.units_per_piece() - 1) / work.units_per_piece();
    return api()->KernelContext_ParallelFor(context, run_channels, pieces, 0, const_cast<ChannelWork*>(&work));
  }

  static void run_channels(void* data, std::size_t index) {
    const ChannelWork& work = *static_cast<const ChannelWork*>(data);
    const std::size_t first = index * work.units_per_piece();
    work.run(first, std::min(first + work.units_per_piece(), work.units()));
  }

  ort::Status* refuse_block(const KappaInput& kappa) const {
    return fail(api(), ort::kInvalidArgument,
                this->node() + ": channel_block is " + std::to_string(this->attributes().channel_block) +
                    ", expected a divisor of the number of channels, " + std::to_string(kappa.layout.channels));
  }

  // Repeats the offsets of every channel or block `inner` times, in place: from the end, so that nothing is overwritten
  // before it is read.
  static void spread(std::vector<Bits>* offsets, std::size_t inner, std::size_t block) {
    const std::size_t groups = offsets->size() / block;
    offsets->resize(groups * inner * block);
    for (std::size_t group = groups; group-- > 0;) {
      for (std::size_t i = inner; i-- > 0;) {
        const auto from = offsets->begin() + static_cast<std::ptrdiff_t>(group * block);
        const auto to = offsets->begin() + static_cast<std::ptrdiff_t>((group * inner + i) * block);
        if (from != to) std::copy(from, from + static_cast<std::ptrdiff_t>(block), to);
      }
    }
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
  static constexpr std::size_t kFewInBlocks = 512 / sizeof(Bits);
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
