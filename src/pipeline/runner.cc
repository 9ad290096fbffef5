// SPDX-License-Identifier: Apache-2.0
#include "pipeline/runner.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <deque>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "arrow/array/util.h"
#include "base/check.h"
#include "base/mutex.h"
#include "base/task_scope.h"
#include "fmt/format.h"
#include "pipeline/in_flight.h"
#include "pipeline/request_key.h"

namespace millstream {
namespace {

constexpr std::int64_t kPrepareRows = 32;  // rows rendered and tokenized at a time
constexpr auto kPollTick = std::chrono::milliseconds(20);
constexpr auto kCutShortTime = std::chrono::milliseconds(1500);

// Counts rows on their way into the job's sink, and ends a piece with the last of them.
class CountingSink final : public RowSink {
 public:
  CountingSink(RowSink& sink, InFlight& in_flight) : sink_(sink), in_flight_(in_flight) {}

  // The piece stays open until its reading is counted, too.
  void Open(const Piece& piece) {
    in_flight_.Open(piece.number);
    MutexLock lock(mutex_);
    open_[piece.number] = {piece, piece.Count(0, piece.split.num_rows) + 1};
  }
  Status Finish(FinishedRows rows) override {
    std::map<std::int64_t, std::int64_t> counts;
    for (const RowRef& row : rows.batch.rows) ++counts[row.piece];
    MS_RETURN_NOT_OK(sink_.Finish(std::move(rows)));
    for (const auto& [piece, count] : counts) MS_RETURN_NOT_OK(Count(piece, count));
    return Status::OK();
  }
  // Counts rows that came, or do not, as they were taken back.
  Status Count(std::int64_t piece, std::int64_t count) {
    Piece ended;
    {
      MutexLock lock(mutex_);
      const auto found = open_.find(piece);
      MS_CHECK(found != open_.end() && found->second.left >= count);
      found->second.left -= count;
      if (found->second.left > 0) return Status::OK();
      ended = std::move(found->second.piece);
      open_.erase(found);
    }
    MS_RETURN_NOT_OK(sink_.End(ended));
    in_flight_.Close(piece);
    return Status::OK();
  }
  Status EndReading(std::int64_t piece) { return Count(piece, 1); }

 private:
  struct OpenPiece {
    Piece piece;
    std::int64_t left = 0;
  };

  RowSink& sink_;
  InFlight& in_flight_;
  Mutex mutex_;
  std::map<std::int64_t, OpenPiece> open_ MS_GUARDED_BY(mutex_);
};

// Passes rows to operator `next`, and what is left after the last one to `end`.
class OperatorEmitter final : public Emitter {
 public:
  OperatorEmitter(std::span<const std::unique_ptr<Operator>> rest, Emitter& end)
      : rest_(rest), end_(end) {}

  Status Emit(RowBatch batch) override {
    if (batch.num_rows() == 0) return Status::OK();
    if (rest_.empty()) return end_.Emit(std::move(batch));
    OperatorEmitter next(rest_.subspan(1), end_);
    return rest_.front()->Process(std::move(batch), next);
  }
  Status Leave(FinishedRows rows) override {
    return rows.batch.rows.empty() ? Status::OK() : end_.Leave(std::move(rows));
  }

 private:
  std::span<const std::unique_ptr<Operator>> rest_;
  Emitter& end_;
};

// Rows in the engine: a source batch's row and the samples that are still to come.
struct PendingRow {
  std::shared_ptr<const RowBatch> source;
  AnsweredRow answer;
  RequestId first_request = 0;    // the samples' follow
  std::vector<Hash128> requests;  // a sample each, where results are kept
  std::int64_t samples_left = 0;
  bool is_cut = false;  // a sample was cancelled: the row is not answered
};

// One generate step at run time: what waits for it, and what is in its engine.
struct StepState {
  const GenerateStep* step = nullptr;
  Engine* engine = nullptr;  // none: no row comes
  std::size_t segment = 0;

  Mutex mutex;
  std::condition_variable_any changed;
  std::deque<RowBatch> queue MS_GUARDED_BY(mutex);
  bool input_done MS_GUARDED_BY(mutex) = false;   // nothing will be pushed any more
  bool feeder_done MS_GUARDED_BY(mutex) = false;  // nothing will be submitted any more
  bool finished MS_GUARDED_BY(mutex) = false;     // and nothing is in the engine
  // By the id of the row's first request; its samples' ids follow.
  std::map<RequestId, PendingRow> pending MS_GUARDED_BY(mutex);
};

class Run {
 public:
  Run(const RunnerInput& input, const RunnerOptions& options, RowSink& sink)
      : input_(input),
        options_(options),
        in_flight_(options.budget_bytes, input.bytes_in_flight),
        sink_(sink, in_flight_) {
    for (std::size_t i = 0; i < input.job->segments.size(); ++i) {
      const GenerateStep* step = input.job->segments[i].generate.get();
      if (step == nullptr) continue;
      auto state = std::make_unique<StepState>();
      state->step = step;
      const auto engine = input.engines.find(step->model_key());
      if (engine != input.engines.end()) state->engine = engine->second;
      state->segment = i;
      steps_.push_back(std::move(state));
    }
  }

  Status Execute(std::stop_token stop) {
    const std::stop_callback drain(input_.drain, [this] { admission_.request_stop(); });
    TaskScope scope(stop);
    const int readers = NumReaders();
    readers_left_ = readers;
    for (int i = 0; i < readers; ++i) {
      scope.Spawn([this](std::stop_token token) {
        const std::stop_callback forward(token, [this] { admission_.request_stop(); });
        return Read(admission_.get_token());
      });
    }
    std::set<Engine*> engines;
    for (auto& state : steps_) {
      scope.Spawn([this, step = state.get()](std::stop_token token) {
        const std::stop_callback forward(token, [this] { admission_.request_stop(); });
        return Feed(*step, admission_.get_token());
      });
      if (state->engine != nullptr) engines.insert(state->engine);
    }
    for (Engine* engine : engines) {
      scope.Spawn([this, engine](std::stop_token token) { return Drain(*engine, token); });
    }
    MS_RETURN_NOT_OK(scope.Join());
    const bool is_done = took_all_ && in_flight_.idle();  // a stop may come as the last row ends
    if (!is_done && (stop.stop_requested() || input_.drain.stop_requested())) {
      return Status::Cancelled("stopped on request");
    }
    MS_CHECK(is_done);  // or rows were lost on the way
    return Status::OK();
  }

 private:
  // Passes rows on behind operator segment `segment`: to its generate step, or out.
  class SegmentEnd final : public Emitter {
   public:
    SegmentEnd(Run& run, std::size_t segment) : run_(run), segment_(segment) {}
    Status Emit(RowBatch batch) override {
      if (segment_ == run_.steps_.size()) {
        return run_.sink_.Finish({RowStatus::kOk, std::move(batch), {}});
      }
      StepState& state = *run_.steps_[segment_];
      MutexLock lock(state.mutex);
      state.queue.push_back(std::move(batch));
      state.changed.notify_all();
      return Status::OK();
    }
    Status Leave(FinishedRows rows) override { return run_.sink_.Finish(std::move(rows)); }

   private:
    Run& run_;
    const std::size_t segment_;
  };

  int NumReaders() const {
    if (!steps_.empty()) return 1;
    const int threads = options_.threads > 0
                            ? options_.threads
                            : static_cast<int>(std::thread::hardware_concurrency());
    return std::clamp(threads, 1, 1024);
  }

  Status Process(std::size_t segment, RowBatch batch) {
    SegmentEnd end(*this, segment);
    return RunOperators(input_.job->segments[segment].operators, std::move(batch), end);
  }

  Status Read(std::stop_token stop) {
    SplitReader reader(
        *input_.snapshot,
        *input_.input,
        input_.job->input_columns,
        options_.batch_rows,
        input_.unread
    );
    while (true) {
      const auto pieces = OpenNext(stop);
      if (stop.stop_requested()) return Status::OK();
      MS_RETURN_NOT_OK(pieces.status());
      if (pieces->empty()) break;
      for (const Piece& piece : *pieces) {
        if (stop.stop_requested()) return Status::OK();
        MS_RETURN_NOT_OK(ReadPiece(reader, piece, stop));
      }
    }
    if (--readers_left_ == 0 && !steps_.empty()) EndInput(0);
    return Status::OK();
  }

  // A reader's next pieces, opened in the order in which all readers take them.
  Result<std::vector<Piece>> OpenNext(const std::stop_token& stop) {
    MutexLock lock(next_mutex_);
    MS_ASSIGN_OR_RETURN(std::vector<Piece> pieces, input_.work->Next(NumReaders(), stop));
    for (const Piece& piece : pieces) sink_.Open(piece);
    if (pieces.empty()) took_all_ = true;
    return pieces;
  }

  Status ReadPiece(SplitReader& reader, const Piece& piece, std::stop_token stop) {
    std::int64_t index = piece.begin;
    while (index < EndOf(piece)) {
      const std::int64_t end = piece.EndOfAlike(index);
      if (piece.Has(index)) {
        MS_ASSIGN_OR_RETURN(index, ReadRows(reader, piece, index, end, stop));
        const bool is_whole = piece.Count(index, piece.end) == 0;  // then it is, whatever comes
        if (stop.stop_requested() && !is_whole) return Status::OK();
      } else {
        index = end;
      }
    }
    MS_RETURN_NOT_OK(sink_.Count(piece.number, piece.Count(index, piece.end)));
    return sink_.EndReading(piece.number);
  }

  std::int64_t EndOf(const Piece& piece) const {
    return std::min(piece.end, input_.work->EndOf(piece.number));
  }

  // Reads rows [begin, end) of a piece, or those that are left of it, and none else: of another a
  // worker may die. Returns where it has stopped.
  Result<std::int64_t> ReadRows(
      SplitReader& reader,
      const Piece& piece,
      std::int64_t begin,
      std::int64_t end,
      std::stop_token stop
  ) {
    MS_RETURN_NOT_OK(reader.Open(SliceOf(piece.split, begin, end)));
    std::int64_t index = begin;
    while (index < EndOf(piece)) {
      MS_ASSIGN_OR_RETURN(std::optional<InputBatch> input, reader.Next());
      if (!input) break;
      const std::int64_t count = input->columns->num_rows();
      MS_ASSIGN_OR_RETURN(
          RowBatch batch, StartRows(*input_.job, *std::move(input), piece, index, sink_)
      );
      index += count;
      if (batch.num_rows() == 0) continue;
      if (!in_flight_.Admit(piece.number, BatchBytes(batch), stop)) break;
      MS_RETURN_NOT_OK(Process(0, std::move(batch)));
    }
    if (index < std::min(end, EndOf(piece)) && !stop.stop_requested()) {
      return Conflict(fmt::format(
          "the input changed while it was read: split {} ends after {} records, planned were {}",
          piece.split.number,
          index,
          piece.split.num_rows
      ));
    }
    return index;
  }

  // No more rows will reach step `number`.
  void EndInput(std::size_t number) {
    if (number >= steps_.size()) return;
    StepState& state = *steps_[number];
    MutexLock lock(state.mutex);
    state.input_done = true;
    state.changed.notify_all();
    if (state.engine == nullptr) EndInput(number + 1);
  }

  Status Feed(StepState& state, std::stop_token stop) {
    Status fed = FeedRows(state, stop);
    MutexLock lock(state.mutex);
    state.feeder_done = true;
    state.changed.notify_all();
    return fed;
  }

  Status FeedRows(StepState& state, const std::stop_token& stop) {
    while (true) {
      std::shared_ptr<const RowBatch> batch;
      {
        MutexLock lock(state.mutex);
        state.changed.wait(lock, stop, [&]() MS_REQUIRES(state.mutex) {
          return state.input_done || !state.queue.empty();
        });
        if (stop.stop_requested() || state.queue.empty()) return Status::OK();
        batch = std::make_shared<const RowBatch>(std::move(state.queue.front()));
        state.queue.pop_front();
      }
      for (std::int64_t begin = 0; begin < batch->num_rows() && !stop.stop_requested();) {
        const std::int64_t end = std::min(begin + kPrepareRows, NumHeld(state, *batch));
        if (begin >= end) {
          MS_RETURN_NOT_OK(sink_.Count(batch->rows.front().piece, batch->num_rows() - begin));
          break;
        }
        MS_ASSIGN_OR_RETURN(std::vector<PreparedRow> rows, state.step->Prepare(*batch, begin, end));
        MS_RETURN_NOT_OK(SubmitRows(state, batch, std::move(rows), stop));
        begin = end;
      }
    }
  }

  // How many rows of a batch are not taken back; those of later steps are begun. Batches before the
  // first step have rows of one piece.
  std::int64_t NumHeld(const StepState& state, const RowBatch& batch) const {
    if (state.segment > 0) return batch.num_rows();
    const std::int64_t end = input_.work->EndOf(batch.rows.front().piece);
    const auto taken = std::partition_point(
        batch.rows.begin(), batch.rows.end(), [end](const RowRef& row) { return row.index < end; }
    );
    return taken - batch.rows.begin();
  }

  Status SubmitRows(
      StepState& state,
      const std::shared_ptr<const RowBatch>& batch,
      std::vector<PreparedRow> rows,
      std::stop_token stop
  ) {
    std::vector<FailedRow> failed;
    for (PreparedRow& row : rows) {
      if (row.error) failed.push_back({row.row, *std::move(row.error)});
    }
    SegmentEnd end(*this, state.segment);
    MS_RETURN_NOT_OK(LeaveFailed(*batch, std::move(failed), end));
    std::vector<PendingRow> known;
    for (PreparedRow& row : rows) {
      if (row.requests.empty()) continue;
      PendingRow pending;
      pending.source = batch;
      pending.answer = {
          row.row,
          row.truncated,
          std::move(row.prompt),
          std::vector<Completion>(row.requests.size()),
          std::move(row.check)
      };
      std::vector<Request> requests = TakeKnown(state, std::move(row.requests), pending);
      if (!requests.empty() && (!WaitForRoom(state, requests, stop) || stop.stop_requested())) {
        break;
      }
      const RowRef& place = batch->rows[static_cast<std::size_t>(row.row)];
      if (state.segment == 0 && !input_.work->Begin(place)) {
        MS_RETURN_NOT_OK(sink_.Count(place.piece, 1));
        continue;
      }
      if (requests.empty()) {
        known.push_back(std::move(pending));
        continue;
      }
      const RequestId first = pending.first_request;
      {
        MutexLock lock(state.mutex);
        state.pending.emplace(first, std::move(pending));
      }
      for (Request& request : requests) state.engine->Submit(std::move(request));
    }
    return Collect(state, std::move(known));
  }

  // Puts the answers that are known into the row, and returns the requests that are left, each with
  // its id and what is known of its answer's beginning.
  std::vector<Request> TakeKnown(
      StepState& state, std::vector<Request> requests, PendingRow& pending
  ) {
    const auto samples = static_cast<std::int64_t>(requests.size());
    pending.first_request = next_request_.fetch_add(samples);
    std::vector<Request> left;
    for (std::int64_t sample = 0; sample < samples; ++sample) {
      Request& request = requests[static_cast<std::size_t>(sample)];
      request.id = pending.first_request + sample;
      if (input_.results != nullptr) {
        pending.requests.push_back(HashOfRequest(request, state.step->model_identity()));
        KnownResult known = input_.results->Find(KeyOf(state, pending, sample));
        if (known.answer) {
          pending.answer.samples[static_cast<std::size_t>(sample)] = *std::move(known.answer);
          continue;
        }
        request.generated_tokens = std::move(known.prefix);
      }
      left.push_back(std::move(request));
    }
    pending.samples_left = static_cast<std::int64_t>(left.size());
    return left;
  }

  static ResultKey KeyOf(const StepState& state, const PendingRow& pending, std::int64_t sample) {
    const RowRef& row = pending.source->rows[static_cast<std::size_t>(pending.answer.row)];
    const Hash128& request = pending.requests[static_cast<std::size_t>(sample)];
    return {row.split, row.id, state.step->id(), sample, request};
  }

  // Waits until the engine has room for a row's requests; a step with nothing in the engine never
  // waits for more room than the engine has when empty.
  bool WaitForRoom(StepState& state, const std::vector<Request>& requests, std::stop_token stop) {
    const auto samples = static_cast<std::int64_t>(requests.size());
    const auto tokens = static_cast<std::int64_t>(requests.front().prompt_tokens.size());
    MutexLock lock(state.mutex);
    return state.changed.wait(lock, stop, [&]() MS_REQUIRES(state.mutex) {
      const Room room = state.engine->room();
      return state.pending.empty() || (room.requests >= samples && room.tokens >= tokens);
    });
  }

  Status Drain(Engine& engine, std::stop_token stop) {
    while (!stop.stop_requested() && !AllFinished(engine)) {
      MS_ASSIGN_OR_RETURN(
          std::vector<Completion> completions,
          engine.Poll(std::chrono::steady_clock::now() + kPollTick, stop)
      );
      MS_RETURN_NOT_OK(PassOn(engine, completions));
    }
    return stop.stop_requested() ? CutShort(engine) : Status::OK();
  }

  Status PassOn(Engine& engine, std::vector<Completion>& completions) {
    for (auto& state : steps_) {
      if (state->engine != &engine) continue;
      MS_ASSIGN_OR_RETURN(std::vector<PendingRow> rows, TakeAnswers(*state, completions));
      MS_RETURN_NOT_OK(Collect(*state, std::move(rows)));
      EndIfDone(*state);
      MutexLock lock(state->mutex);
      state->changed.notify_all();  // room may have come
    }
    return Status::OK();
  }

  // At a stop: ends what is in the engine, and keeps what it has, for a while and no longer.
  Status CutShort(Engine& engine) {
    if (input_.results == nullptr) return Status::OK();
    const auto deadline = std::chrono::steady_clock::now() + kCutShortTime;
    for (auto& state : steps_) {
      if (state->engine != &engine) continue;
      MutexLock lock(state->mutex);
      // A request that is submitted after its cancellation would not be cancelled.
      state->changed.wait_until(lock, deadline, [&]() MS_REQUIRES(state->mutex) {
        return state->feeder_done;
      });
      for (const auto& [first, row] : state->pending) {
        const auto samples = static_cast<std::int64_t>(row.answer.samples.size());
        for (std::int64_t sample = 0; sample < samples; ++sample) engine.Cancel(first + sample);
      }
    }
    while (HasPending(engine) && std::chrono::steady_clock::now() < deadline) {
      auto completions = engine.Poll(deadline, {});
      if (!completions.ok()) return Status::OK();  // the run has ended anyway
      for (auto& state : steps_) {
        if (state->engine == &engine) MS_RETURN_NOT_OK(TakeAnswers(*state, *completions).status());
      }
    }
    return Status::OK();
  }

  // Keeps a step's answers, and returns the rows that they complete.
  Result<std::vector<PendingRow>> TakeAnswers(
      StepState& state, std::vector<Completion>& completions
  ) {
    std::vector<PendingRow> rows;
    for (Completion& completion : completions) {
      PendingRow* pending = nullptr;  // stays where it is: this thread alone takes rows out
      {
        MutexLock lock(state.mutex);
        auto found = state.pending.upper_bound(completion.id);
        if (found == state.pending.begin()) continue;
        pending = &(--found)->second;
      }
      const auto sample = completion.id - pending->first_request;
      auto& samples = pending->answer.samples;
      if (sample >= static_cast<std::int64_t>(samples.size())) continue;
      if (input_.results != nullptr) {
        MS_RETURN_NOT_OK(KeepAnswer(KeyOf(state, *pending, sample), completion));
      }
      if (completion.reason == FinishReason::kCancelled) pending->is_cut = true;
      samples[static_cast<std::size_t>(sample)] = std::move(completion);
      if (--pending->samples_left > 0) continue;
      const RequestId first = pending->first_request;
      if (!pending->is_cut) rows.push_back(std::move(*pending));
      MutexLock lock(state.mutex);
      state.pending.erase(first);
    }
    return rows;
  }

  Status KeepAnswer(const ResultKey& key, const Completion& completion) {
    switch (completion.reason) {
      case FinishReason::kStop:
      case FinishReason::kLength:
      case FinishReason::kRunaway:
        return input_.results->Keep(key, completion);
      case FinishReason::kCancelled:
        return completion.tokens.empty() ? Status::OK()
                                         : input_.results->KeepPrefix(key, completion.tokens);
      case FinishReason::kError:
        return completion.killed_engine ? input_.results->Blame(key, completion) : Status::OK();
    }
    return Status::OK();
  }

  // Passes answered rows on, those of one batch together.
  Status Collect(StepState& state, std::vector<PendingRow> rows) {
    std::map<const RowBatch*, std::vector<PendingRow>> by_batch;
    for (PendingRow& row : rows) by_batch[row.source.get()].push_back(std::move(row));
    SegmentEnd end(*this, state.segment + 1);
    OperatorEmitter next(input_.job->segments[state.segment + 1].operators, end);
    for (auto& [source, answered] : by_batch) {
      std::sort(answered.begin(), answered.end(), [](const PendingRow& a, const PendingRow& b) {
        return a.answer.row < b.answer.row;
      });
      std::vector<std::int64_t> indices;
      std::vector<AnsweredRow> answers;
      for (PendingRow& row : answered) {
        indices.push_back(row.answer.row);
        CountAnswer(source->rows[static_cast<std::size_t>(row.answer.row)].piece, row.answer);
        answers.push_back(std::move(row.answer));
      }
      MS_ASSIGN_OR_RETURN(RowBatch batch, TakeRows(*source, indices));
      MS_RETURN_NOT_OK(state.step->Collect(std::move(batch), answers, next));
    }
    return Status::OK();
  }

  void CountAnswer(std::int64_t piece, const AnsweredRow& answer) {
    for (const Completion& sample : answer.samples) {
      const std::size_t bytes = sample.text.size() + sample.scores.size() * sizeof(float);
      in_flight_.Grow(piece, static_cast<std::int64_t>(bytes));
      if (sample.reason == FinishReason::kLength && input_.cut_answers != nullptr) {
        ++*input_.cut_answers;
      }
    }
  }

  // Ends the next step's input once this one has nothing left. The drainer's alone to say: it may
  // hold rows that are neither pending nor in the next queue yet.
  void EndIfDone(StepState& state) {
    {
      MutexLock lock(state.mutex);
      if (!state.feeder_done || !state.pending.empty() || state.finished) return;
      state.finished = true;
    }
    EndInput(state.segment + 1);
  }

  bool HasPending(const Engine& engine) {
    return std::any_of(steps_.begin(), steps_.end(), [&](const std::unique_ptr<StepState>& state) {
      if (state->engine != &engine) return false;
      MutexLock lock(state->mutex);
      return !state->pending.empty();
    });
  }

  bool AllFinished(const Engine& engine) {
    return std::all_of(steps_.begin(), steps_.end(), [&](const std::unique_ptr<StepState>& state) {
      if (state->engine != &engine) return true;
      MutexLock lock(state->mutex);
      return state->finished;
    });
  }

  const RunnerInput& input_;
  const RunnerOptions& options_;
  InFlight in_flight_;
  CountingSink sink_;
  std::vector<std::unique_ptr<StepState>> steps_;
  std::atomic<RequestId> next_request_ = 1;
  std::atomic<int> readers_left_ = 0;
  std::stop_source admission_;  // stopped: no more rows are read or begun

  Mutex next_mutex_;
  std::atomic<bool> took_all_ = false;
};

}  // namespace

Status RunPipeline(
    const RunnerInput& input, const RunnerOptions& options, RowSink& sink, std::stop_token stop
) {
  return Run(input, options, sink).Execute(std::move(stop));
}

Status RunOperators(
    std::span<const std::unique_ptr<Operator>> operators, RowBatch batch, Emitter& end
) {
  return OperatorEmitter(operators, end).Emit(std::move(batch));
}

Result<RowBatch> StartRows(
    const BoundJob& job,
    InputBatch input,
    const Piece& piece,
    std::int64_t first_index,
    RowSink& end
) {
  RowBatch batch;
  const std::int64_t count = input.columns->num_rows();
  batch.columns = std::move(input.columns);
  batch.rows.resize(static_cast<std::size_t>(count));
  for (std::int64_t row = 0; row < count; ++row) {
    batch.rows[static_cast<std::size_t>(row)] = {
        {input.file, input.first_record + row}, piece.split.number, first_index + row, piece.number
    };
  }
  arrow::FieldVector fields;
  arrow::ArrayVector arrays;
  for (const auto& [before, after] : job.kept) {
    const int index = batch.columns->schema()->GetFieldIndex(before);
    fields.push_back(batch.columns->schema()->field(index)->WithName(after));
    arrays.push_back(batch.columns->column(index));
  }
  batch.kept = arrow::RecordBatch::Make(arrow::schema(std::move(fields)), count, std::move(arrays));
  if (input.errors.empty() && input.skipped.empty()) return batch;

  std::vector<std::int64_t> good, bad;
  FinishedRows failed{RowStatus::kError, {}, {}};
  auto error = input.errors.begin();
  auto skipped = input.skipped.begin();
  for (std::int64_t row = 0; row < count; ++row) {
    if (error != input.errors.end() && error->first == row) {
      bad.push_back(row);
      failed.errors.push_back(std::move((error++)->second));
    } else if (skipped != input.skipped.end() && *skipped == row) {
      ++skipped;
    } else {
      good.push_back(row);
    }
  }
  if (!bad.empty()) {
    MS_ASSIGN_OR_RETURN(failed.batch, TakeRows(batch, bad));
    MS_RETURN_NOT_OK(end.Finish(std::move(failed)));
  }
  if (!input.skipped.empty()) {
    MS_ASSIGN_OR_RETURN(RowBatch foreign, TakeRows(batch, input.skipped));
    MS_RETURN_NOT_OK(end.Finish({RowStatus::kSkipped, std::move(foreign), {}}));
  }
  return TakeRows(batch, good);
}

}  // namespace millstream
