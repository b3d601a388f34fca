# A primary and a synchronous standby in another zone: a failover loses nothing.

locals {
  # Of a node: the shared ones, a turn loop for each four cores, and two of its own. A release has one node more for each.
  connections_per_node = var.database_connections + max(1, floor(var.node_cpu / 4096)) + 2
  connections          = 2 * var.nodes.max * local.connections_per_node + 20
}

resource "random_password" "database" {
  length  = 32
  special = false
}

resource "aws_db_subnet_group" "this" {
  name       = var.name
  subnet_ids = var.private_subnet_ids
}

resource "aws_db_parameter_group" "this" {
  name_prefix = "${var.name}-"
  family      = "postgres17"
  description = "What nodes of Cursus rely on"

  # An answered publish is durable. (A session that finds it off turns it on for itself.)
  parameter {
    name  = "synchronous_commit"
    value = "on"
  }

  parameter {
    name         = "max_connections"
    value        = tostring(local.connections)
    apply_method = "pending-reboot"
  }

  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }

  # A long transaction holds back vacuum on tables that change with every message.
  parameter {
    name  = "idle_in_transaction_session_timeout"
    value = "60000"
  }

  parameter {
    name  = "log_min_duration_statement"
    value = "1000"
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_security_group" "database" {
  name_prefix = "${var.name}-database-"
  description = "Postgres of ${var.name}"
  vpc_id      = var.vpc_id

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "database" {
  security_group_id            = aws_security_group.database.id
  referenced_security_group_id = aws_security_group.node.id
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
}

resource "aws_db_instance" "this" {
  identifier     = var.name
  engine         = "postgres"
  engine_version = "17"
  instance_class = var.database_instance_class
  multi_az       = true

  allocated_storage     = var.database_storage_gib
  max_allocated_storage = 4 * var.database_storage_gib
  storage_type          = "gp3"
  storage_encrypted     = true

  db_name  = "cursus"
  username = "cursus"
  password = random_password.database.result

  db_subnet_group_name   = aws_db_subnet_group.this.name
  vpc_security_group_ids = [aws_security_group.database.id]
  parameter_group_name   = aws_db_parameter_group.this.name
  publicly_accessible    = false

  # Puts it back to any second of these days: infra/operate/backup-and-restore.md.
  backup_retention_period      = var.backup_days
  copy_tags_to_snapshot        = true
  deletion_protection          = var.is_protected
  skip_final_snapshot          = !var.is_protected
  final_snapshot_identifier    = "${var.name}-final"
  performance_insights_enabled = true
  auto_minor_version_upgrade   = true
}

# Nodes get the URL, with its password, as a secret.
resource "aws_secretsmanager_secret" "database_url" {
  name_prefix = "${var.name}-database-url-"
}

resource "aws_secretsmanager_secret_version" "database_url" {
  secret_id = aws_secretsmanager_secret.database_url.id
  secret_string = format(
    "postgres://cursus:%s@%s/cursus?sslmode=require",
    random_password.database.result,
    aws_db_instance.this.endpoint,
  )
}
