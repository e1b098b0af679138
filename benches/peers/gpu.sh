#!/usr/bin/env bash
# On a machine with a GPU: builds, checks the kernels, then times training steps against PyTorch on the same GPU.
# Needs Rust, Python with torch (benches/peers/requirements.txt) and, for cuda, libnvrtc.
#
#     benches/peers/gpu.sh [cuda|vulkan] [python]
set -euo pipefail
cd "$(dirname "$0")/../.."
device=${1:-cuda}
python=${2:-python3}

cargo build --release --locked
program=target/release/sansprop
"$program" devices
"$program" check --device "$device"
"$program" config --data add-task > target/gpu-bench.toml
"$program" bench target/gpu-bench.toml --device "$device" --steps 20
# Trials in cohorts, each time that of one of them.
"$program" config --data cifar-10 > target/gpu-cifar.toml
for cohort in 1 8 32; do
  "$program" bench target/gpu-cifar.toml --device "$device" --widths 8,32 --steps 64 --trials 1 --cohort "$cohort"
done

peer() {
  "$python" benches/peers/pytorch_step.py --ours "$device" --device cuda --layouts channels-last --steps 5 "$@"
}
for precision in f32 bf16; do
  theirs=$precision
  [ "$precision" = f32 ] && theirs=float32
  peer --widths 8,32,64,128,256,512 --norms batch-norm --modes graphs --precisions "$theirs" --precision "$precision"
  peer --widths 8,32,64,128,256 --norms axis --modes compile-graphs --precisions "$theirs" --precision "$precision"
done
for rule in align-ada align-zero dfa last-layer; do
  peer --widths 8,64,256 --norms batch-norm --modes graphs --rule "$rule"
done
