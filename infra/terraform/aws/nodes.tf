# Nodes, behind a load balancer.

data "aws_region" "this" {}

locals {
  environment = merge({
    CURSUS_LISTEN               = "0.0.0.0:8080"
    CURSUS_SERVICE_LISTEN       = "0.0.0.0:9090"
    CURSUS_LOG_FORMAT           = "json"
    CURSUS_DRAIN_TIMEOUT        = "${var.drain_seconds}s"
    CURSUS_DATABASE_CONNECTIONS = tostring(var.database_connections)
    S3_BUCKET                   = aws_s3_bucket.this.id
    S3_REGION                   = data.aws_region.this.region
    # All cores: the default leaves half of them to a Postgres on the same machine.
    CURSUS_WORKER_THREADS = tostring(max(1, floor(var.node_cpu / 1024)))
  }, var.settings)
}

resource "aws_security_group" "balancer" {
  name_prefix = "${var.name}-balancer-"
  description = "Load balancer of ${var.name}"
  vpc_id      = var.vpc_id

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "balancer" {
  for_each          = toset(var.client_cidr_blocks)
  security_group_id = aws_security_group.balancer.id
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "balancer" {
  security_group_id            = aws_security_group.balancer.id
  referenced_security_group_id = aws_security_group.node.id
  ip_protocol                  = "tcp"
  from_port                    = 8080
  to_port                      = 8080
}

resource "aws_security_group" "node" {
  name_prefix = "${var.name}-node-"
  description = "Nodes of ${var.name}"
  vpc_id      = var.vpc_id

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "node" {
  security_group_id            = aws_security_group.node.id
  referenced_security_group_id = aws_security_group.balancer.id
  ip_protocol                  = "tcp"
  from_port                    = 8080
  to_port                      = 8080
}

resource "aws_vpc_security_group_ingress_rule" "metrics" {
  for_each                     = var.metrics_security_group_ids
  security_group_id            = aws_security_group.node.id
  referenced_security_group_id = each.value
  ip_protocol                  = "tcp"
  from_port                    = 9090
  to_port                      = 9090
}

# The database, S3, and the endpoints of push subscriptions, which are anywhere.
resource "aws_vpc_security_group_egress_rule" "node" {
  security_group_id = aws_security_group.node.id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
}

resource "aws_lb" "this" {
  name               = var.name
  load_balancer_type = "application"
  subnets            = var.public_subnet_ids
  security_groups    = [aws_security_group.balancer.id]
  # More than a long poll of 30 s and the time limit of a request (30 s) together; less than the 75 s for which a node keeps
  # an idle connection, or the load balancer would send requests on connections that the node is closing.
  idle_timeout               = 65
  drop_invalid_header_fields = true
  enable_deletion_protection = var.is_protected
}

resource "aws_lb_target_group" "this" {
  name        = var.name
  port        = 8080
  protocol    = "HTTP"
  target_type = "ip"
  vpc_id      = var.vpc_id
  # ECS sends SIGTERM after this. Till then the load balancer sends no new requests and waits for those under way, for a long
  # poll and a request at most; it does not wait when there are none.
  deregistration_delay = "60"

  health_check {
    # Without object storage small messages go on: it must not take all nodes out of service at once.
    path                = "/readyz?exclude=object_storage"
    matcher             = "200"
    interval            = 5
    timeout             = 4
    healthy_threshold   = 2
    unhealthy_threshold = 3
  }
}

resource "aws_lb_listener" "this" {
  load_balancer_arn = aws_lb.this.arn
  port              = 443
  protocol          = "HTTPS"
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn   = var.certificate_arn

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.this.arn
  }
}

resource "aws_cloudwatch_log_group" "this" {
  name              = "/cursus/${var.name}"
  retention_in_days = 30
}

resource "aws_ecs_cluster" "this" {
  name = var.name
}

resource "aws_ecs_task_definition" "this" {
  family                   = var.name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = tostring(var.node_cpu)
  memory                   = tostring(var.node_memory_mib)
  execution_role_arn       = aws_iam_role.start.arn
  task_role_arn            = aws_iam_role.node.arn

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture
  }

  container_definitions = jsonencode([{
    name                   = "cursus"
    image                  = var.image
    essential              = true
    command                = ["serve"]
    readonlyRootFilesystem = true
    user                   = "65532:65532"
    environment            = [for name, value in local.environment : { name = name, value = value }]
    secrets                = [{ name = "DATABASE_URL", valueFrom = aws_secretsmanager_secret.database_url.arn }]
    portMappings           = [{ containerPort = 8080 }]
    ulimits                = [{ name = "nofile", softLimit = 65536, hardLimit = 65536 }]
    stopTimeout            = var.drain_seconds + 15
    healthCheck = {
      command     = ["CMD", "/usr/bin/cursus", "health"]
      interval    = 10
      timeout     = 6
      retries     = 6
      startPeriod = 120
    }
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.this.name
        awslogs-region        = data.aws_region.this.region
        awslogs-stream-prefix = "node"
        mode                  = "non-blocking"
      }
    }
  }])
}

resource "aws_ecs_service" "this" {
  name            = var.name
  cluster         = aws_ecs_cluster.this.id
  task_definition = aws_ecs_task_definition.this.arn
  launch_type     = "FARGATE"
  desired_count   = var.nodes.min
  # The first new node migrates the schema while the old ones serve.
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200
  health_check_grace_period_seconds  = 120

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets         = var.private_subnet_ids
    security_groups = [aws_security_group.node.id]
  }

  load_balancer {
    target_group_arn = aws_lb_target_group.this.arn
    container_name   = "cursus"
    container_port   = 8080
  }

  lifecycle {
    ignore_changes = [desired_count]
  }

  depends_on = [aws_lb_listener.this, aws_iam_role_policy.start, aws_secretsmanager_secret_version.database_url]
}

resource "aws_appautoscaling_target" "this" {
  service_namespace  = "ecs"
  scalable_dimension = "ecs:service:DesiredCount"
  resource_id        = "service/${aws_ecs_cluster.this.name}/${aws_ecs_service.this.name}"
  min_capacity       = var.nodes.min
  max_capacity       = var.nodes.max
}

resource "aws_appautoscaling_policy" "this" {
  name               = "${var.name}-cpu"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.this.service_namespace
  scalable_dimension = aws_appautoscaling_target.this.scalable_dimension
  resource_id        = aws_appautoscaling_target.this.resource_id

  target_tracking_scaling_policy_configuration {
    target_value       = 70
    scale_in_cooldown  = 300
    scale_out_cooldown = 60

    predefined_metric_specification {
      predefined_metric_type = "ECSServiceAverageCPUUtilization"
    }
  }
}
