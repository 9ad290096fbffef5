// SPDX-License-Identifier: Apache-2.0
#include "engine/native_engine.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <exception>
#include <new>
#include <set>
#include <unordered_map>
#include <utility>

#include "base/check.h"
#include "base/mutex.h"
#include "base/task_scope.h"
#include "engine/generation.h"
#include "engine/identical.h"
#include "engine/machine.h"
#include "engine/page_pool.h"
#include "engine/scheduler.h"
#include "kernels/isa.h"
#include "model/llama.h"

namespace millstream {
namespace {

using kernels::Isa;
using kernels::kPageTokens;
using kernels::Precision;
using Clock = std::chrono::steady_clock;

constexpr std::int64_t kLogitRows = 64;  // rows whose logits are held at once

std::size_t Size(std::int64_t count) {
  return static_cast<std::size_t>(count);
}

constexpr std::string_view kAutoIsa = "auto";

std::string_view ForcedIsa() {
  const char* name = std::getenv("MILLSTREAM_ISA");
  return name != nullptr && name != kAutoIsa ? name : "";
}

Result<Isa> ChooseIsa(const std::string& given) {
  const bool is_forced = !ForcedIsa().empty();
  const std::string name = is_forced ? std::string(ForcedIsa()) : given;
  if (name == kAutoIsa) return kernels::FastestIsa();
  const char* const where = is_forced ? "MILLSTREAM_ISA" : "isa";
  const auto isa = kernels::IsaByName(name);
  if (!isa) {
    return Status::Invalid(
        where, " is \"", name, "\", which is none of reference, avx2, avx512, avx512_bf16"
    );
  }
  if (!kernels::IsSupported(*isa)) {
    return Status::Invalid(where, " is ", name, ", which this machine does not have");
  }
  return *isa;
}

/// One request with its place in the cache, and those that get the same answer.
struct Sequence {
  Generation generation;
  std::string greedy_key;            // identical.h
  std::vector<RequestId> wanted_by;  // none that is cancelled
  std::int64_t computed = 0;         // tokens in the cache
  bool was_admitted = false;         // and preempted since
  std::vector<std::int32_t> pages = {};

  std::int64_t known() const { return std::ssize(generation.tokens()); }
  /// How many tokens it may yet generate.
  std::int64_t expected() const {
    const Request& request = generation.request();
    return request.sampling.max_tokens - known() + std::ssize(request.prompt_tokens);
  }
  bool is_scored() const { return generation.request().score; }
  /// Whole pages of the prompt, which others may begin with. One token at least is left to compute;
  /// all of a text to score, since a page holds no logits.
  std::int64_t prompt_pages() const {
    if (is_scored()) return 0;
    return (std::ssize(generation.request().prompt_tokens) - 1) / kPageTokens;
  }
  std::span<const std::int32_t> TokensOfPage(std::int64_t page) const {
    return generation.tokens().subspan(Size(page * kPageTokens), Size(kPageTokens));
  }
};
using SequencePtr = std::unique_ptr<Sequence>;

/// What the engine's thread alone touches: sequences, cache and buffers.
class Batch {
 public:
  struct Parts {
    std::shared_ptr<const LanguageModel> language;
    std::shared_ptr<const LlamaModel> model;
    KvCache cache;
    Workspace workspace;
    std::unique_ptr<kernels::Team> team;
    NativeEngineOptions options;
  };

  explicit Batch(Parts parts)
      : parts_(std::move(parts)),
        pool_(parts_.cache.num_pages()),
        logits_(Size(kLogitRows * parts_.model->logit_stride())),
        scratch_(Size(kLogitRows)) {}

  bool IsIdle() const { return running_.empty() && waiting_.empty(); }

  void Add(Request request) {
    std::string key = GreedyKey(request);
    if (const auto same = greedy_.find(key); same != greedy_.end()) {
      same->second->wanted_by.push_back(request.id);
      ++stats_.shared_requests;
      return;
    }
    const RequestId id = request.id;
    const std::int64_t max_tokens =
        request.score ? 0 : std::max<std::int64_t>(0, request.sampling.max_tokens);
    // A text's last token is scored, and not computed.
    const std::int64_t prompt = std::ssize(request.prompt_tokens) - (request.score ? 1 : 0);
    const std::int64_t context = parts_.model->context();
    auto sequence = std::make_unique<Sequence>(Sequence{
        Generation(parts_.language, parts_.model->config().vocabulary, context, std::move(request)),
        std::move(key),
        {id}
    });
    const std::int64_t longest = prompt + std::min(max_tokens, context - std::min(context, prompt));
    if (!sequence->generation.ended() && PagesFor(longest) > parts_.cache.num_pages()) {
      sequence->generation.Fail(
          "out_of_kv_memory",
          "prompt and answer may take " + std::to_string(longest) +
              " tokens, and the KV cache holds " +
              std::to_string(parts_.cache.num_pages() * kPageTokens)
      );
    }
    if (sequence->generation.ended()) {
      Finish(*sequence);
    } else {
      if (!sequence->greedy_key.empty()) greedy_[sequence->greedy_key] = sequence.get();
      waiting_.push_back(std::move(sequence));
    }
  }

  void Cancel(RequestId id) {
    const auto cancel = [&](const SequencePtr& sequence) {
      if (std::erase(sequence->wanted_by, id) == 0) return;
      Answer(*sequence, id);
      if (sequence->wanted_by.empty()) sequence->generation.Cancel();
    };
    std::for_each(running_.begin(), running_.end(), cancel);
    std::for_each(waiting_.begin(), waiting_.end(), cancel);
    Retire();
  }

  /// Computes one step of what runs and waits.
  void Step() {
    const auto start = Clock::now();
    OrderWaiting();
    const StepPlan plan = Plan();
    Apply(plan);
    if (plan.work.empty()) {
      // Add() let nothing in that does not fit alone.
      MS_CHECK(plan.num_preempted > 0);
      return;
    }
    Compute(plan.work);
    ++stats_.steps;
    Retire();
    CountTime(Clock::now() - start);
  }

  /// What ended since the last call.
  std::vector<Completion> TakeCompletions() { return std::exchange(completions_, {}); }
  const EngineStats& stats() const { return stats_; }
  void CountIdle(std::chrono::nanoseconds time) { stats_.idle_time += time.count(); }

 private:
  void CountTime(std::chrono::nanoseconds step) {
    step_time_ += step;
    const PassTimes& pass = parts_.workspace.times();
    stats_.products_time = pass.products.count();
    stats_.attention_time = pass.attention.count();
    stats_.head_time = pass.head.count();
    stats_.sampling_time = sampling_time_.count();
    stats_.rest_time =
        (step_time_ - pass.products - pass.attention - pass.head - sampling_time_).count();
  }

  SchedulerLimits Limits() const {
    return {parts_.options.step_tokens, parts_.options.max_sequences, pool_.num_free()};
  }

  void OrderWaiting() {
    std::vector<std::int64_t> expected;
    for (const SequencePtr& sequence : waiting_) expected.push_back(sequence->expected());
    std::deque<SequencePtr> ordered;
    for (const std::size_t i : AdmissionOrder(Limits(), running_.size(), expected)) {
      ordered.push_back(std::move(waiting_[i]));
    }
    waiting_ = std::move(ordered);
  }

  StepPlan Plan() const {
    std::vector<SequenceState> running, waiting;
    for (const SequencePtr& sequence : running_) {
      running.push_back(StateOf(*sequence, sequence->pages));
    }
    const SchedulerLimits limits = Limits();
    // No more than may be admitted: each takes a token of the budget at least.
    const std::int64_t most =
        std::min(limits.step_tokens, limits.max_sequences - std::ssize(running_));
    std::set<std::pair<std::int32_t, std::vector<std::int32_t>>> next_pages;
    for (const SequencePtr& sequence : waiting_) {
      if (std::ssize(waiting) >= most) break;
      const PagePool::Match match = pool_.Find(PromptPages(*sequence));
      SequenceState& state = waiting.emplace_back(StateOf(*sequence, match.pages));
      state.computed = std::ssize(match.pages) * kPageTokens;
      state.waits = match.is_next_coming;
      if (std::ssize(match.pages) < sequence->prompt_pages()) {
        const auto tokens = sequence->TokensOfPage(std::ssize(match.pages));
        const std::int32_t before = match.pages.empty() ? PagePool::kNoPage : match.pages.back();
        const bool is_first =
            next_pages.emplace(before, std::vector(tokens.begin(), tokens.end())).second;
        state.waits = state.waits || !is_first;
      }
      if (state.waits) break;
    }
    return PlanStep(limits, running, waiting);
  }

  SequenceState StateOf(const Sequence& sequence, const std::vector<std::int32_t>& pages) const {
    SequenceState state{sequence.known(), sequence.computed, std::ssize(pages)};
    const std::int32_t own = &pages == &sequence.pages ? 1 : 0;
    state.shared = std::count_if(pages.begin(), pages.end(), [&](std::int32_t page) {
      return pool_.users(page) > own;
    });
    return state;
  }

  static std::span<const std::int32_t> PromptPages(const Sequence& sequence) {
    return sequence.generation.tokens().first(Size(sequence.prompt_pages() * kPageTokens));
  }

  void Apply(const StepPlan& plan) {
    for (std::size_t i = 0; i < plan.num_preempted; ++i) {
      FreePages(*running_.back());
      running_.back()->computed = 0;
      waiting_.push_front(std::move(running_.back()));
      running_.pop_back();
      ++stats_.preemptions;
    }
    for (std::size_t i = 0; i < plan.num_admitted; ++i) {
      running_.push_back(std::move(waiting_.front()));
      waiting_.pop_front();
      Begin(*running_.back());
      if (!std::exchange(running_.back()->was_admitted, true)) {
        stats_.prompt_tokens += std::ssize(running_.back()->generation.request().prompt_tokens);
        stats_.cached_tokens += running_.back()->computed;
      }
    }
    for (const StepPlan::Work& work : plan.work) TakePages(*running_[work.sequence]);
  }

  /// With what is in the cache of its prompt; what is not it will compute for others too.
  void Begin(Sequence& sequence) {
    sequence.pages = pool_.Find(PromptPages(sequence)).pages;
    for (const std::int32_t page : sequence.pages) pool_.Use(page);
    sequence.computed = std::ssize(sequence.pages) * kPageTokens;
    auto p = std::ssize(sequence.pages);
    TakePages(sequence);
    for (; p < sequence.prompt_pages(); ++p) {
      const std::int32_t before = p > 0 ? sequence.pages[Size(p - 1)] : PagePool::kNoPage;
      pool_.Announce(before, sequence.TokensOfPage(p), sequence.pages[Size(p)]);
    }
  }

  /// Enough for all its known tokens.
  void TakePages(Sequence& sequence) {
    while (std::ssize(sequence.pages) < PagesFor(sequence.known())) {
      sequence.pages.push_back(pool_.Take());
    }
  }

  void FreePages(Sequence& sequence) {
    for (auto p = sequence.pages.rbegin(); p != sequence.pages.rend(); ++p) pool_.Release(*p);
    sequence.pages.clear();
  }

  /// Pages of a prompt, once all of it was computed to a token: one of its tokens that makes values
  /// that are no numbers may have spoilt those before it in their tile.
  void SetReady(const Sequence& sequence) {
    if (sequence.generation.ended() == FinishReason::kError) return;
    for (std::int64_t p = 0; p < sequence.prompt_pages(); ++p) {
      pool_.SetReady(sequence.pages[Size(p)]);
    }
  }

  void Compute(const std::vector<StepPlan::Work>& work) {
    std::vector<Chunk> chunks;
    std::vector<Wanted> wanted;
    for (const StepPlan::Work& one : work) {
      Sequence& sequence = *running_[one.sequence];
      const auto tokens =
          sequence.generation.tokens().subspan(Size(sequence.computed), Size(one.tokens));
      const std::int64_t position =
          std::exchange(sequence.computed, sequence.computed + one.tokens);
      const std::int64_t next = sequence.computed == sequence.known() ? 1 : 0;
      const std::int64_t num_logits = sequence.is_scored() ? one.tokens : next;
      chunks.push_back({tokens, position, sequence.pages, num_logits});
      stats_.computed_tokens += one.tokens;
      for (std::int64_t i = one.tokens - num_logits; i < one.tokens; ++i) {
        wanted.push_back({&sequence, position + i});
      }
    }
    parts_.model->Forward(chunks, parts_.cache, parts_.workspace, *parts_.team);
    UseLogits(wanted);
    for (std::size_t i = 0; i < work.size(); ++i) {
      Sequence& sequence = *running_[work[i].sequence];
      const std::int64_t prompt = std::ssize(sequence.generation.request().prompt_tokens);
      if (chunks[i].position < prompt && sequence.computed >= prompt) SetReady(sequence);
      if (!sequence.is_scored()) continue;
      if (sequence.computed == sequence.known()) sequence.generation.EndScores();
    }
  }

  /// A row of logits: those of the sequence's token at `position`.
  struct Wanted {
    Sequence* sequence;
    std::int64_t position;
  };

  void UseLogits(const std::vector<Wanted>& wanted) {
    const std::int64_t stride = parts_.model->logit_stride();
    const std::size_t vocabulary = Size(parts_.model->config().vocabulary);
    const std::int64_t total = std::ssize(wanted);
    for (std::int64_t first = 0; first < total; first += kLogitRows) {
      const std::int64_t count = std::min(kLogitRows, total - first);
      parts_.model->Logits(parts_.workspace, first, count, logits_.data(), *parts_.team);
      const auto start = Clock::now();
      parts_.team->For(count, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          const std::span<float> row(logits_.data() + i * stride, vocabulary);
          const auto& [sequence, position] = wanted[Size(first + i)];
          if (sequence->is_scored()) {
            sequence->generation.Score(
                parts_.model->kernels(), position, row, scratch_[Size(i)].sampler
            );
          } else {
            sequence->generation.Next(parts_.model->kernels(), row, scratch_[Size(i)]);
          }
        }
      });
      sampling_time_ += Clock::now() - start;
    }
    stats_.completion_tokens += std::count_if(wanted.begin(), wanted.end(), [](const Wanted& one) {
      return !one.sequence->is_scored();
    });
  }

  void Retire() {
    const auto ended = [&](const SequencePtr& sequence) {
      if (!sequence->generation.ended()) return false;
      FreePages(*sequence);
      Finish(*sequence);
      return true;
    };
    std::erase_if(running_, ended);
    std::erase_if(waiting_, ended);
  }

  void Finish(const Sequence& sequence) {
    greedy_.erase(sequence.greedy_key);
    for (const RequestId id : sequence.wanted_by) Answer(sequence, id);
  }

  void Answer(const Sequence& sequence, RequestId id) {
    completions_.push_back(sequence.generation.Complete());
    completions_.back().id = id;
    stats_.runaways += completions_.back().reason == FinishReason::kRunaway ? 1 : 0;
    ++stats_.requests_finished;
  }

  Parts parts_;
  PagePool pool_;
  std::vector<SequencePtr> running_;  // in order of admission
  std::deque<SequencePtr> waiting_;
  std::unordered_map<std::string_view, Sequence*> greedy_;  // those of the above, by their keys
  std::vector<float> logits_;
  std::vector<GenerationScratch> scratch_;  // one a row of logits
  std::vector<Completion> completions_;
  std::chrono::nanoseconds step_time_{}, sampling_time_{};
  EngineStats stats_;
};

/// The thread-safe face of a Batch, and the thread that steps it.
class NativeEngine final : public Engine {
 public:
  NativeEngine(std::unique_ptr<Batch> batch, Room room) : batch_(std::move(batch)), room_(room) {
    loop_.Spawn([this](std::stop_token stop) { return Loop(stop); });
  }

  Room room() const override {
    MutexLock lock(mutex_);
    return {
        std::max<std::int64_t>(0, room_.requests - open_.requests),
        std::max<std::int64_t>(0, room_.tokens - open_.tokens)
    };
  }

  void Submit(Request request) override {
    MutexLock lock(mutex_);
    open_.requests += 1;
    open_.tokens += static_cast<std::int64_t>(request.prompt_tokens.size());
    submitted_.push_back(std::move(request));
    work_.notify_one();
  }

  void Cancel(RequestId id) override {
    MutexLock lock(mutex_);
    cancelled_.push_back(id);
    work_.notify_one();
  }

  Result<std::vector<Completion>> Poll(Deadline deadline, std::stop_token stop) override {
    MutexLock lock(mutex_);
    news_.wait_until(lock, stop, deadline, [this]() MS_REQUIRES(mutex_) {
      return !finished_.empty() || !death_.ok();
    });
    if (finished_.empty() && !death_.ok()) return death_;
    return std::exchange(finished_, {});
  }

  EngineStats stats() const override {
    MutexLock lock(mutex_);
    return stats_;
  }

 private:
  Status Loop(std::stop_token stop) {
    Status status = Status::OK();
    try {
      while (TakeWork(stop)) {
        if (!batch_->IsIdle()) batch_->Step();
        Publish();
      }
    } catch (const std::bad_alloc&) {
      status = Status::OutOfMemory("the engine failed: no memory for its next step");
    } catch (const std::exception& error) {
      status = Status::UnknownError("the engine failed: ", error.what());
    }
    if (!status.ok()) {
      MutexLock lock(mutex_);
      death_ = status;
      news_.notify_all();
    }
    return status;
  }

  /// Waits for something to do. Returns false if `stop` is requested.
  bool TakeWork(const std::stop_token& stop) {
    std::vector<Request> submitted;
    std::vector<RequestId> cancelled;
    const bool was_idle = batch_->IsIdle();
    const auto start = Clock::now();
    {
      MutexLock lock(mutex_);
      work_.wait(lock, stop, [this]() MS_REQUIRES(mutex_) {
        return !submitted_.empty() || !cancelled_.empty() || !batch_->IsIdle();
      });
      if (stop.stop_requested()) return false;
      submitted.swap(submitted_);
      cancelled.swap(cancelled_);
    }
    if (was_idle && batch_->stats().steps > 0) batch_->CountIdle(Clock::now() - start);
    for (Request& request : submitted) batch_->Add(std::move(request));
    for (const RequestId id : cancelled) batch_->Cancel(id);
    return true;
  }

  void Publish() {
    std::vector<Completion> completions = batch_->TakeCompletions();
    MutexLock lock(mutex_);
    stats_ = batch_->stats();
    for (Completion& completion : completions) {
      open_.requests -= 1;
      open_.tokens -= completion.prompt_tokens;
      finished_.push_back(std::move(completion));
    }
    if (!completions.empty()) news_.notify_all();
  }

  const std::unique_ptr<Batch> batch_;  // the loop's
  const Room room_;                     // when nothing is open

  mutable Mutex mutex_;
  std::condition_variable_any work_;
  std::condition_variable_any news_;
  std::vector<Request> submitted_ MS_GUARDED_BY(mutex_);
  std::vector<RequestId> cancelled_ MS_GUARDED_BY(mutex_);
  std::vector<Completion> finished_ MS_GUARDED_BY(mutex_);
  Room open_ MS_GUARDED_BY(mutex_);  // submitted and not finished
  EngineStats stats_ MS_GUARDED_BY(mutex_);
  Status death_ MS_GUARDED_BY(mutex_) = Status::OK();

  TaskScope loop_;  // last: ends before what it uses
};

/// How many pages the cache gets: what was asked for, else a quarter of the memory, but never more
/// than is useful.
std::int64_t CachePages(
    const NativeEngineOptions& options, std::int64_t context, std::int64_t page_bytes
) {
  const auto bytes = static_cast<std::uint64_t>(page_bytes);
  const auto one = static_cast<std::uint64_t>(PagesFor(context));
  const std::uint64_t useful = one * static_cast<std::uint64_t>(options.max_sequences);
  if (options.memory_bytes > 0) {
    return static_cast<std::int64_t>(std::min(useful, options.memory_bytes / bytes));
  }
  const std::uint64_t available = AvailableMemoryBytes() / bytes;
  const std::uint64_t least = std::min(one, available / 2);
  return static_cast<std::int64_t>(std::min(useful, std::max(least, available / 4)));
}

Precision PrecisionOf(Compute compute) {
  switch (compute) {
    case Compute::kInt8:
      return Precision::kInt8;
    case Compute::kBF16:
      return Precision::kBf16;
    default:
      return Precision::kF32;
  }
}

// As the first layer tells.
bool HasQuantizedLayers(const Checkpoint& checkpoint) {
  const auto is_quantized = [&](const char* name) {
    const TensorView* tensor = checkpoint.Find(std::string("blk.0.") + name + ".weight");
    return tensor != nullptr && IsQuantized(tensor->type);
  };
  return is_quantized("attn_q") || is_quantized("ffn_gate") || is_quantized("ffn_down");
}

Status CheckOptions(const NativeEngineOptions& options, const LanguageModel& model) {
  if (options.context < 0 || options.context > model.context) {
    return Status::Invalid("context is ", options.context, ", and the model's is ", model.context);
  }
  if (options.threads < 0 || options.threads > 1024) {
    return Status::Invalid("threads is ", options.threads, ", not within 0 and 1024");
  }
  if (options.step_tokens < 1 || options.max_sequences < 1) {
    return Status::Invalid("step_tokens and max_sequences must be positive");
  }
  return Status::OK();
}

}  // namespace

Compute ResolveCompute(Compute compute, std::string_view isa, const Checkpoint& checkpoint) {
  if (compute != Compute::kAuto) return compute;
  if (HasQuantizedLayers(checkpoint)) return Compute::kInt8;
  const bool has_bf16 =
      isa == kAutoIsa ? kernels::HasBf16() : isa == kernels::IsaName(Isa::kAvx512Bf16);
  return has_bf16 ? Compute::kBF16 : Compute::kF32;
}

Compute ComputeFromName(std::string_view name) {
  for (const Compute compute : {Compute::kF32, Compute::kBF16, Compute::kInt8}) {
    if (name == ComputeName(compute)) return compute;
  }
  return Compute::kAuto;
}

std::string_view ComputeName(Compute compute) {
  switch (compute) {
    case Compute::kAuto:
      return "auto";
    case Compute::kF32:
      return "f32";
    case Compute::kBF16:
      return "bf16";
    case Compute::kInt8:
      return "int8";
  }
  return "auto";
}

std::string_view InstructionSet(std::string_view isa) {
  if (!ForcedIsa().empty()) return ForcedIsa();
  return isa == kAutoIsa ? kernels::IsaName(kernels::FastestIsa()) : isa;
}

std::string_view CommonInstructionSet(std::string_view one, std::string_view other) {
  // Each has those before it.
  for (const Isa isa : {Isa::kReference, Isa::kAvx2, Isa::kAvx512}) {
    const std::string_view name = kernels::IsaName(isa);
    if (one == name || other == name) return name;
  }
  return kernels::IsaName(Isa::kAvx512Bf16);
}

Result<std::unique_ptr<Engine>> MakeNativeEngine(
    std::shared_ptr<const LanguageModel> model, const NativeEngineOptions& options
) {
  MS_RETURN_NOT_OK(CheckOptions(options, *model));
  MS_ASSIGN_OR_RETURN(const Isa isa, ChooseIsa(options.isa));
  const Compute compute = ResolveCompute(options.compute, options.isa, *model->checkpoint);
  const kernels::Kernels& table = kernels::GetKernels(isa, PrecisionOf(compute));
  const std::int64_t context = options.context > 0 ? options.context : model->context;
  auto team =
      std::make_unique<kernels::Team>(options.threads > 0 ? options.threads : UsableCores());
  MS_ASSIGN_OR_RETURN(auto llama, LlamaModel::Load(model->checkpoint, table, context, *team));

  const std::int64_t page_bytes = KvCache::PageBytes(llama->config(), table);
  const std::int64_t num_pages = CachePages(options, context, page_bytes);
  if (num_pages < 1) {
    return Status::Invalid(
        "the KV cache needs at least ", page_bytes, " bytes, one page of tokens"
    );
  }
  MS_ASSIGN_OR_RETURN(KvCache cache, KvCache::Make(llama->config(), table, num_pages));
  MS_ASSIGN_OR_RETURN(Workspace workspace, Workspace::Make(*llama, options.step_tokens));
  // Half as many again as can run, so that something waits whenever there is room in the batch.
  const Room room{
      options.max_sequences + (options.max_sequences + 1) / 2, 2 * num_pages * kPageTokens
  };
  auto batch = std::make_unique<Batch>(Batch::Parts{
      std::move(model),
      std::move(llama),
      std::move(cache),
      std::move(workspace),
      std::move(team),
      options
  });
  return std::make_unique<NativeEngine>(std::move(batch), room);
}

}  // namespace millstream
