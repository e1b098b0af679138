"""One training step of the paper's CIFAR-10 network: sansprop against PyTorch, in one run.

The peer is what a scientist would write (NCHW, autograd, a plain SGD update) and what an expert would make of it:
the norm as mean and variance over axis 0 or as the framework's batch_norm over [batch, location and channel]; eager,
torch.compile or, on CUDA, the whole step of either as a CUDA graph; contiguous or channels_last; float32, bf16
autocast, on CUDA also tf32. Both sides start from the same weights (NumPy's generator, seed 99) on the same minibatch; the
losses of the first three steps must agree before anything is timed. Then turns of a few steps alternate, so that a
change of the machine's speed meets both. The last line of each width is the best configuration of the peer.

    python -m venv .venv && .venv/bin/pip install -r benches/peers/requirements.txt
    .venv/bin/python benches/peers/pytorch_step.py [--widths 8,32,64] [--norms axis,batch-norm]
        [--modes eager,compile] [--layouts contiguous,channels-last] [--precisions float32] [--rule normal]
        [--device cpu] [--ours vulkan] [--threads 2] [--steps 10] [--precision f32] [--binary PATH]
"""

import time

import torch

from common import STRIDES, compare, initial_weights, minibatch, parser

# How far losses may be apart: relative, by the peer's precision.
TOLERANCE = {"float32": 1e-4, "tf32": 1e-2, "bf16": 5e-2}

AXES = {
    "norms": ("axis,batch-norm", "axis, batch-norm"),
    "modes": ("eager", "eager, compile, graphs, compile-graphs"),
    "layouts": ("contiguous", "contiguous, channels-last"),
    "precisions": ("float32", "of the peer: float32, tf32, bf16"),
}


def axis_norm(x):
    """Mean and variance over axis 0."""
    mean = x.mean(0, keepdim=True)
    variance = ((x - mean) ** 2).mean(0, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-6)


def batch_norm(x):
    """The same by the framework's own kernel."""
    flat = torch.nn.functional.batch_norm(x.reshape(x.shape[0], -1), None, None, training=True, eps=1e-6)
    return flat.reshape(x.shape)


NORMS = {"axis": axis_norm, "batch-norm": batch_norm}


def forward(x, weights, biases, norm):
    """The network. Scale, bias and, where it is the same on all sides, padding are the convolution's own: it is fastest so."""
    for weight, bias, stride in zip(weights, biases, STRIDES):
        if stride == 2:
            x = torch.nn.functional.pad(x, (0, 1, 0, 1))
        scaled = weight * (9 * weight.shape[1]) ** -0.5
        x = torch.nn.functional.conv2d(x, scaled, bias, stride=stride, padding=0 if stride == 2 else 1)
        x = torch.relu(norm(x))
    return x.mean((2, 3)) @ weights[-1].T / weights[-1].shape[1] ** 0.5 + biases[-1]


class Peer:
    """The PyTorch side, in one of its configurations."""

    def __init__(self, width, norm, mode, layout, precision, device):
        self.norm = NORMS[norm]
        self.tolerance = TOLERANCE[precision]
        self.bf16 = precision == "bf16"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.benchmark = True
        form = torch.channels_last if layout == "channels-last" else torch.contiguous_format
        images, targets = minibatch()
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2).to(device).contiguous(memory_format=form)
        self.targets = torch.from_numpy(targets).to(device)
        weights, biases = initial_weights(width)
        weights = [w.transpose(0, 3, 1, 2) if w.ndim == 4 else w for w in weights]
        place = lambda p: torch.tensor(p).to(device).contiguous(
            memory_format=form if p.ndim == 4 else torch.contiguous_format).requires_grad_()
        self.weights, self.biases = [place(p) for p in weights], [place(p) for p in biases]
        self.device = device
        # Every width is compiled by itself, with its sizes as constants.
        torch._dynamo.reset()
        self.loss_of = torch.compile(self.loss, dynamic=False) if mode.startswith("compile") else self.loss
        self.graph = None
        self.losses = [self.step()[0] for _ in range(3)]
        if mode.endswith("graphs"):
            self.capture()

    def loss(self):
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.bf16):
            output = forward(self.images, self.weights, self.biases, self.norm)
        return ((output.float() - self.targets) ** 2).mean()

    def update(self):
        """One step; its loss stays on the device."""
        loss = self.loss_of()
        parameters = self.weights + self.biases
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients):
                parameter -= gradient
        return loss.detach()

    def capture(self):
        """Records a step, to be replayed without the host."""
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            self.update()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.captured = self.update()

    def step(self, steps=1):
        """The loss of the last of so many steps, and the milliseconds of one. The host looks at the last loss only."""
        start = time.perf_counter()
        for _ in range(steps):
            if self.graph is None:
                loss = self.update()
            else:
                self.graph.replay()
                loss = self.captured
        return loss.item(), (time.perf_counter() - start) * 1e3 / steps


def main():
    options = parser(__doc__, AXES, torch.get_num_threads())
    options.add_argument("--device", default="cpu", help="of the peer: cpu, cuda")
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    compare(f"PyTorch {torch.__version__} on {arguments.device}", arguments, AXES,
            lambda *configuration: Peer(*configuration, arguments.device))


if __name__ == "__main__":
    main()
