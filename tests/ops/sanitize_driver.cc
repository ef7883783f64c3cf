// Runs the whole CPU library under the sanitizers, on a runtime made for it: every callback, every way a call into the
// runtime can fail, exact-size buffers on the heap, and threads. Prints "clean" and returns 0 if nothing is wrong.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "made_runtime.h"

extern "C" Status* RegisterCustomOps(SessionOptions* options, const ApiBase* base);

namespace {

std::string take(Status* status) {
  const std::string message = status == nullptr ? "" : status->message;
  delete status;
  return message;
}

const CustomOp& find(const SessionOptions& options, const char* name, ElementType type) {
  for (const CustomOp* op : options.domains.at(0)->ops) {
    if (std::string(op->GetName(op)) == name && op->GetOutputType(op, 0) == type) return *op;
  }
  std::fprintf(stderr, "no operator %s\n", name);
  std::exit(1);
}

void* create(const CustomOp& op, const Api& api, const KernelInfo& info, std::string* wrong) {
  void* kernel = nullptr;
  *wrong = take(op.CreateKernelV2(&op, &api, &info, &kernel));
  return kernel;
}

// Runs a kernel over exact-size heap buffers, in place or apart.
void run_length(const CustomOp& op, void* kernel, std::size_t count, bool in_place) {
  std::unique_ptr<float[]> in(new float[count]);
  std::unique_ptr<float[]> out(new float[count]);
  for (std::size_t i = 0; i < count; ++i) in[i] = static_cast<float>(i % 7) - 3.0f;
  const std::vector<float> before(in.get(), in.get() + count);
  const Value input{{static_cast<std::int64_t>(count)}, in.get()};
  Value output{{}, in_place ? in.get() : out.get()};
  KernelContext context{{&input}, &output, {}};
  CHECK(take(op.KernelComputeV2(kernel, &context)).empty());
  CHECK(context.asked == input.dims);
  const float* result = static_cast<float*>(output.data);
  for (std::size_t i = 0; i < count; ++i) CHECK(result[i] == (before[i] > 1.5f ? std::fmin(before[i], 2.5f) : 0.0f));
}

void check_lengths(const SessionOptions& options, const Api& api) {
  const CustomOp& op = find(options, "JumpRelu", kFloat);
  std::string wrong;
  void* kernel = create(op, api, {{{"kappa", 1.5f}, {"cap", 2.5f}}, {"z"}, "site"}, &wrong);
  CHECK(wrong.empty());
  for (std::size_t count = 0; count <= 130; ++count) {
    run_length(op, kernel, count, true);
    run_length(op, kernel, count, false);
  }
  for (std::size_t count : {4095, 4096, 4097, 65535, 65536, 65537, 300001}) run_length(op, kernel, count, true);
  op.KernelDestroy(kernel);
}

void check_rank_zero_and_types(const SessionOptions& options, const Api& api) {
  for (const ElementType type : {kFloat, kDouble, kFloat16, kBfloat16}) {
    const CustomOp& op = find(options, "JumpRelu", type);
    CHECK(op.GetInputTypeCount(&op) == 2 && op.GetOutputTypeCount(&op) == 1);
    CHECK(op.GetInputType(&op, 0) == type && op.GetInputType(&op, 1) == kFloat);
    CHECK(op.GetInputCharacteristic(&op, 0) == kRequired && op.GetInputCharacteristic(&op, 1) == kOptional);
    CHECK(op.GetInputMemoryType(&op, 1) == kDefaultMemory && op.GetExecutionProviderType(&op) == nullptr);
    CHECK(op.GetStartVersion(&op) == 1 && op.version == kMinimumApi);
    std::string wrong;
    void* kernel = create(op, api, {{{"kappa", 0.5f}}, {"z"}, ""}, &wrong);
    CHECK(wrong.empty());
    alignas(8) unsigned char element[8] = {};
    const Value input{{}, element};
    Value output{{}, element};
    KernelContext context{{&input}, &output, {7}};
    CHECK(take(op.KernelComputeV2(kernel, &context)).empty() && context.asked.empty());
    op.KernelDestroy(kernel);
  }
}

void check_kappa_input(const SessionOptions& options, const Api& api) {
  const CustomOp& op = find(options, "JumpRelu", kFloat);
  std::string wrong;
  void* kernel = create(op, api, {{}, {"z", "kappa"}, "site"}, &wrong);
  CHECK(wrong.empty());
  float kappa = 1.0f;
  float z[3] = {0.5f, 1.0f, 2.0f};
  const Value input{{3}, z};
  const Value scalar{{}, &kappa};
  Value output{{}, z};
  KernelContext context{{&input, &scalar}, &output, {}};
  CHECK(take(op.KernelComputeV2(kernel, &context)).empty() && z[1] == 0.0f && z[2] == 2.0f);
  kappa = NAN;
  CHECK(take(op.KernelComputeV2(kernel, &context)).find("the kappa input is nan") != std::string::npos);
  context.inputs[1] = nullptr;
  CHECK(take(op.KernelComputeV2(kernel, &context)).find("has no value") != std::string::npos);
  op.KernelDestroy(kernel);
}

// Every call into the runtime fails once, in the kernel's creation and in its runs.
void check_failures(const SessionOptions& options, const Api& api) {
  const CustomOp& op = find(options, "JumpRelu", kFloat);
  const CustomOp& draw = find(options, "DrawKappa", kFloat);
  std::string wrong;
  void* kernel = create(op, api, {{}, {"z", "kappa"}, "site"}, &wrong);
  void* drawing = create(draw, api, {{{"low", 0.25f}, {"high", 0.5f}}, {}, "draw"}, &wrong);
  CHECK(wrong.empty());
  float kappa = 1.0f;
  std::vector<float> z(70000, 2.0f);
  const Value input{{70000}, z.data()};
  const Value scalar{{}, &kappa};
  Value output{{}, z.data()};
  int failures = 0;
  for (int at = 0; at < 20; ++at) {
    KernelContext context{{&input, &scalar}, &output, {}};
    calls_until_failure = at;
    failures += !take(op.KernelComputeV2(kernel, &context)).empty();
    calls_until_failure = at;
    failures += !take(draw.KernelComputeV2(drawing, &context)).empty();
    calls_until_failure = at;
    void* made = create(op, api, {{{"kappa", 1.0f}}, {"z", ""}, "site"}, &wrong);
    if (made != nullptr) op.KernelDestroy(made);
    TensorTypeAndShapeInfo shape{{2, -1}, {"", "N"}};
    ShapeInferContext inference{&shape, {}, nullptr};
    calls_until_failure = at;
    CHECK(op.InferOutputShapeFn(&op, &inference) == nullptr);
    CHECK((inference.given == &shape) == (at >= 4));  // the fifth call is the one that hands it on
    calls_until_failure = at;
    CHECK(draw.InferOutputShapeFn(&draw, &inference) == nullptr);
    calls_until_failure = -1;
  }
  CHECK(failures >= 9);
  op.KernelDestroy(kernel);
  draw.KernelDestroy(drawing);
}

// A shape is handed on only where each dimension has a size or a name.
void check_shapes(const SessionOptions& options) {
  const CustomOp& op = find(options, "JumpRelu", kFloat);
  const auto handed_on = [&op](TensorTypeAndShapeInfo shape) {
    ShapeInferContext inference{&shape, {}, nullptr};
    CHECK(op.InferOutputShapeFn(&op, &inference) == nullptr);
    CHECK(inference.given == nullptr || inference.given == &shape);
    std::vector<std::string> names;
    for (const char* name : shape.names) names.emplace_back(name == nullptr ? "" : name);
    return std::make_pair(inference.given != nullptr, names);
  };
  using Names = std::vector<std::string>;
  CHECK(handed_on({{2, 3}, {"", ""}}) == std::make_pair(true, Names{"", ""}));
  CHECK(handed_on({{2, -1}, {nullptr, "N"}}) == std::make_pair(true, Names{"", "N"}));
  CHECK(handed_on({{0}, {""}}).first && !handed_on({{}, {}}).first);
  // A size that is not known gets a symbol of its own, a new one every time.
  const auto [one, first] = handed_on({{2, -1, -1, -1}, {"", "", "N", nullptr}});
  const auto [other, second] = handed_on({{-1}, {nullptr}});
  CHECK(one && other && first[0].empty() && first[2] == "N");
  CHECK(!first[1].empty() && !first[3].empty() && first[1] != first[3]);
  CHECK(!second[0].empty() && second[0] != first[1] && second[0] != first[3]);
}

void check_draws(const SessionOptions& options, const Api& api) {
  const CustomOp& draw = find(options, "DrawKappa", kFloat);
  std::string wrong;
  void* kernel = create(draw, api, {{{"low", 0.25f}, {"high", 0.5f}}, {}, "draw"}, &wrong);
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      float drawn = 0;
      Value output{{}, &drawn};
      KernelContext context{{}, &output, {}};
      for (int run = 0; run < 200; ++run) {
        CHECK(take(draw.KernelComputeV2(kernel, &context)).empty());
        CHECK(drawn >= 0.25f && drawn < 0.5f);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  draw.KernelDestroy(kernel);
}

// bias and residual, channels first and last, and shapes that do not fit.
void check_bias(const SessionOptions& options, const Api& api) {
  const CustomOp& op = find(options, "BiasJumpRelu", kFloat);
  std::string wrong;
  std::vector<float> x{1, 2, 3, 4, 5, 6}, bias{-1, -3}, residual{0, 0, 0, 0, 0, 10}, y(6);
  const Value residual_value{{3, 2}, residual.data()};
  const Value bias_value{{2}, bias.data()};
  for (const std::int64_t axis : {0, 1, -1}) {
    const std::vector<std::int64_t> dims = axis == 0 ? std::vector<std::int64_t>{2, 3} : std::vector<std::int64_t>{3, 2};
    const Value input{dims, x.data()};
    Value output{dims, y.data()};
    void* kernel = create(op, api, {{{"kappa", 1.0f}, {"axis", static_cast<float>(axis)}}, {"x", "b", ""}, "a"}, &wrong);
    KernelContext context{{&input, &bias_value, nullptr}, &output, {}};
    CHECK(take(op.KernelComputeV2(kernel, &context)).empty() && context.asked == dims);
    CHECK(y == (axis == 0 ? std::vector<float>{0, 0, 2, 0, 2, 3} : std::vector<float>{0, 0, 2, 0, 4, 3}));
    op.KernelDestroy(kernel);
  }
  const Value input{{3, 2}, x.data()};
  Value output{{3, 2}, y.data()};
  void* kernel = create(op, api, {{{"kappa", 1.0f}, {"cap", 5.0f}}, {"x", "b", "r"}, "a"}, &wrong);
  KernelContext context{{&input, &bias_value, &residual_value}, &output, {}};
  CHECK(take(op.KernelComputeV2(kernel, &context)).empty() && y == (std::vector<float>{0, 0, 2, 0, 4, 5}));
  for (int at = 0; at < 11; ++at) {  // three inputs, their shapes and data, the output and its data
    calls_until_failure = at;
    CHECK(!take(op.KernelComputeV2(kernel, &context)).empty());
    calls_until_failure = -1;
  }
  KernelContext swapped{{&input, &residual_value, &residual_value}, &output, {}};
  CHECK(take(op.KernelComputeV2(kernel, &swapped)).find("the bias has the shape (3, 2)") != std::string::npos);
  KernelContext wide{{&input, &bias_value, &bias_value}, &output, {}};
  CHECK(take(op.KernelComputeV2(kernel, &wide)).find("the residual has the shape (2)") != std::string::npos);
  op.KernelDestroy(kernel);
}

// A kappa for each channel: channels alone and in blocks of widths that the kernel knows and one that it does not; rows,
// whole planes and planes in pieces, in place and not.
void check_channels(const SessionOptions& options, const Api& api) {
  const CustomOp& op = find(options, "JumpRelu", kFloat);
  std::string wrong;
  for (const std::int64_t block : {1, 3, 8, 16}) {
    void* kernel = create(op, api, {{{"channel_block", static_cast<float>(block)}}, {"x", "k"}, "a"}, &wrong);
    for (const std::int64_t inner : {1, 2, 7, 33, 40000}) {
      const std::int64_t channels = 2 * block, count = 2 * channels * inner;
      std::vector<float> x, kappas, wanted, y(static_cast<std::size_t>(count), -1.0f);
      for (std::int64_t c = 0; c < channels; ++c) kappas.push_back(static_cast<float>(c % 4));
      for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t channel = i / (inner * block) % 2 * block + i % block;
        x.push_back(static_cast<float>(i % 5));
        wanted.push_back(x.back() > static_cast<float>(channel % 4) ? x.back() : 0.0f);
      }
      const Value input{{2, channels, inner}, x.data()};
      const Value kappa{{channels, 1}, kappas.data()};
      Value output{{2, channels, inner}, y.data()};
      KernelContext context{{&input, &kappa}, &output, {}};
      CHECK(take(op.KernelComputeV2(kernel, &context)).empty() && y == wanted);
      Value in_place{{2, channels, inner}, x.data()};
      KernelContext again{{&input, &kappa}, &in_place, {}};
      CHECK(take(op.KernelComputeV2(kernel, &again)).empty() && x == wanted);
    }
    std::vector<float> five(5);
    const Value input{{1, 5, 1}, five.data()};
    const Value kappa{{5, 1}, five.data()};
    Value output{{1, 5, 1}, five.data()};
    KernelContext context{{&input, &kappa}, &output, {}};
    const std::string said = take(op.KernelComputeV2(kernel, &context));
    CHECK(block == 1 ? said.empty() : said.find("expected a divisor of the number of channels, 5") != std::string::npos);
    op.KernelDestroy(kernel);
  }
}

void check_bad_attributes(const SessionOptions& options, const Api& api) {
  const CustomOp& op = find(options, "JumpRelu", kFloat16);
  std::string wrong;
  CHECK(create(op, api, {{{"kappa", 1e6f}}, {"z"}, "a"}, &wrong) == nullptr);
  CHECK(wrong == "JumpRelu node 'a': kappa overflows float16, the type of the input");
  CHECK(create(op, api, {{{"kappa", -1.0f}}, {"z"}, ""}, &wrong) == nullptr);
  CHECK(wrong == "JumpRelu node: kappa is -1, expected a finite number >= 0");
  op.KernelDestroy(nullptr);
  int* inputs = nullptr;
  int* outputs = nullptr;
  CHECK(op.GetMayInplace(&inputs, &outputs) == 1 && *inputs == 0 && *outputs == 0);
  op.ReleaseMayInplace(inputs, outputs);
}

void check_registration() {
  for (int at = 0; at < 11; ++at) {  // the domain, its nine operators, the session options
    SessionOptions options;
    calls_until_failure = at;
    CHECK(!take(RegisterCustomOps(&options, &kNewBase)).empty());
    CHECK(options.domains.empty() || at == 10);
    calls_until_failure = -1;
  }
  SessionOptions options;
  CHECK(take(RegisterCustomOps(&options, &kTooOldBase)).find("needs ONNX Runtime 1.18") != std::string::npos);
}

}  // namespace

int main() {
  check_registration();
  for (const ApiBase* base : {&kNewBase, &kOldBase}) {
    const Api& api = base == &kNewBase ? new_api : old_api;
    SessionOptions first;
    SessionOptions second;
    CHECK(RegisterCustomOps(&first, base) == nullptr && RegisterCustomOps(&second, base) == nullptr);
    CHECK(first.domains == second.domains && first.domains.size() == 1 && first.domains[0]->ops.size() == 9);
    check_lengths(first, api);
    check_rank_zero_and_types(first, api);
    check_kappa_input(first, api);
    check_failures(first, api);
    check_shapes(first);
    check_draws(first, api);
    check_bias(first, api);
    check_channels(first, api);
    check_bad_attributes(first, api);
  }
  std::puts("clean");
  return 0;
}
