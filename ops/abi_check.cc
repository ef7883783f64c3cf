// Compares ort_abi.h with the real headers of ONNX Runtime, at compile time. Built only with -DJR_ORT_HEADERS and
// the folder of onnxruntime_c_api.h in the include path; every check is a static_assert.
#ifdef JR_ORT_HEADERS

#include <onnxruntime_c_api.h>

#include <cstddef>
#include <type_traits>

#include "ort_abi.h"

#pragma GCC diagnostic ignored "-Wignored-attributes"  // warn_unused_result of the real declarations

namespace {

// True if both are pointers to functions with as many parameters, each of the same size, and a result of the same
// size: the types themselves have other names on the two sides.
template <class R1, class... A1, class R2, class... A2>
constexpr bool same_parameters(R1 (*)(A1...), R2 (*)(A2...)) {
  if constexpr (sizeof...(A1) != sizeof...(A2)) {
    return false;
  } else {
    return ((sizeof(A1) == sizeof(A2) && std::is_pointer_v<A1> == std::is_pointer_v<A2>) && ...) &&
           std::is_void_v<R1> == std::is_void_v<R2>;
  }
}

template <class T>
constexpr T null_of() {
  return static_cast<T>(nullptr);
}

// noexcept is part of a function's type; it does not change how the function is called.
template <class T>
struct Plain {
  using type = T;
};
template <class R, class... A>
struct Plain<R (*)(A...) noexcept> {
  using type = R (*)(A...);
};

#define JR_SAME(mine, theirs, member)                                                                           \
  static_assert(offsetof(mine, member) == offsetof(theirs, member), #member " is at another offset");           \
  static_assert(same_parameters(null_of<typename Plain<decltype(mine::member)>::type>(),                        \
                                null_of<typename Plain<decltype(theirs::member)>::type>()),                     \
                #member " has other parameters")
#define JR_API(member) JR_SAME(jr::ort::Api, OrtApi, member)
#define JR_OP(member) JR_SAME(jr::ort::CustomOp, OrtCustomOp, member)

JR_API(CreateStatus);
JR_API(CreateCustomOpDomain);
JR_API(CustomOpDomain_Add);
JR_API(AddCustomOpDomain);
JR_API(GetTensorMutableData);
JR_API(CreateTensorTypeAndShapeInfo);
JR_API(SetTensorElementType);
JR_API(SetDimensions);
JR_API(GetDimensionsCount);
JR_API(GetDimensions);
JR_API(GetSymbolicDimensions);
JR_API(GetTensorTypeAndShape);
JR_API(KernelInfoGetAttribute_float);
JR_API(KernelContext_GetInput);
JR_API(KernelContext_GetOutput);
JR_API(ReleaseStatus);
JR_API(ReleaseTensorTypeAndShapeInfo);
JR_API(ReleaseCustomOpDomain);
JR_API(KernelContext_GetGPUComputeStream);
JR_API(KernelInfo_GetInputCount);
JR_API(KernelInfo_GetInputName);
JR_API(KernelInfo_GetNodeName);
JR_API(ShapeInferContext_GetInputTypeShape);
JR_API(ShapeInferContext_SetOutputTypeShape);
JR_API(SetSymbolicDimensions);
JR_API(KernelContext_ParallelFor);
#if ORT_API_VERSION >= 24
JR_API(GetTensorElementTypeAndShapeDataReference);
#endif

JR_OP(CreateKernel);
JR_OP(GetName);
JR_OP(GetExecutionProviderType);
JR_OP(GetInputType);
JR_OP(GetInputTypeCount);
JR_OP(GetOutputType);
JR_OP(GetOutputTypeCount);
JR_OP(KernelCompute);
JR_OP(KernelDestroy);
JR_OP(GetInputCharacteristic);
JR_OP(GetOutputCharacteristic);
JR_OP(GetInputMemoryType);
JR_OP(GetVariadicInputMinArity);
JR_OP(GetVariadicInputHomogeneity);
JR_OP(GetVariadicOutputMinArity);
JR_OP(GetVariadicOutputHomogeneity);
JR_OP(CreateKernelV2);
JR_OP(KernelComputeV2);
JR_OP(InferOutputShapeFn);
JR_OP(GetStartVersion);
JR_OP(GetEndVersion);
JR_OP(GetMayInplace);
JR_OP(ReleaseMayInplace);
JR_OP(GetAliasMap);
JR_OP(ReleaseAliasMap);

static_assert(offsetof(jr::ort::CustomOp, version) == offsetof(OrtCustomOp, version), "version");
static_assert(sizeof(jr::ort::CustomOp) == sizeof(OrtCustomOp), "OrtCustomOp has another size");
static_assert(offsetof(jr::ort::ApiBase, GetApi) == offsetof(OrtApiBase, GetApi), "GetApi");
static_assert(offsetof(jr::ort::ApiBase, GetVersionString) == offsetof(OrtApiBase, GetVersionString), "version");

static_assert(jr::ort::kFail == ORT_FAIL, "error code");
static_assert(jr::ort::kInvalidArgument == ORT_INVALID_ARGUMENT, "error code");
static_assert(jr::ort::kNotImplemented == ORT_NOT_IMPLEMENTED, "error code");
static_assert(int{jr::ort::kFloat} == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, "element type");
static_assert(int{jr::ort::kFloat16} == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, "element type");
static_assert(int{jr::ort::kDouble} == ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE, "element type");
static_assert(int{jr::ort::kBfloat16} == ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16, "element type");
static_assert(int{jr::ort::kRequired} == INPUT_OUTPUT_REQUIRED, "characteristic");
static_assert(int{jr::ort::kOptional} == INPUT_OUTPUT_OPTIONAL, "characteristic");
static_assert(int{jr::ort::kDefaultMemory} == OrtMemTypeDefault, "memory type");

}  // namespace

#endif  // JR_ORT_HEADERS
