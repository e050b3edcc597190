# mrpcbench on a CPU: docker build -t mrpcbench . && docker run --rm mrpcbench quickstart
# On a GPU with CUDA 13: docker build -t mrpcbench --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
#                        docker run --rm --gpus all mrpcbench env
FROM python:3.11-slim-bookworm

RUN useradd --create-home mrpcbench
WORKDIR /app
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY mrpcbench ./mrpcbench

# PyTorch's own index has the CPU build, which is several GB smaller.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --no-deps --index-url "$TORCH_INDEX" --constraint constraints.txt torch
RUN pip install --no-cache-dir --constraint constraints.txt .

USER mrpcbench
WORKDIR /home/mrpcbench
ENTRYPOINT ["mrpcbench"]
CMD ["--help"]
