#!/usr/bin/env bash
# On a machine with a GPU: builds, checks the kernels, then times training steps against PyTorch on the same GPU.
# Needs Rust, Python with torch (benches/peers/requirements.txt) and, for cuda, the CUDA toolkit.
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

"$python" benches/peers/pytorch_step.py --ours "$device" --device cuda --steps 30 \
  --widths 8,32,64,128,256 --norms batch-norm --modes eager,compile,graphs --layouts channels-last \
  --precisions float32
for rule in align-ada align-zero dfa last-layer; do
  "$python" benches/peers/pytorch_step.py --ours "$device" --device cuda --steps 30 --rule "$rule" \
    --widths 8,64,256 --norms batch-norm --modes graphs --layouts channels-last
done
